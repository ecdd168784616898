/** What can be said of one container, by the name that it has at Prometheus. */

/** A value with labels beside those of its container. */
export type Reading = readonly [value: number | bigint, labels?: Readonly<Record<string, string>>];

/** A measure of containers with cgroups of one version. */
export interface Measure<M> {
  /** Without the `container_` before it, and with its unit. */
  readonly name: string;
  readonly help: string;
  /** Empty where the host does not count that. */
  readonly read: (metrics: M) => readonly Reading[];
}

/** A measure that is one number, if it is there. */
export function single<M>(
  name: string,
  help: string,
  read: (metrics: M) => number | bigint | undefined,
): Measure<M> {
  return {
    name,
    help,
    read: (metrics) => {
      const value = read(metrics);
      return value === undefined ? [] : [[value]];
    },
  };
}
