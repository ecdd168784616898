/** The networks of pods: a network namespace each, attached by CNI plugins. */
export class PodNetworks {
  close(): void {}
}
