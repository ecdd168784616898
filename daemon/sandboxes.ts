/** The controllers of sandboxes that this daemon has, and which of them a sandbox is run by. */
import type { Cri } from './cri/cri.ts';
import { PodController } from './cri/pod-controller.ts';
import { POD_CONTROLLER } from './cri/pod-metadata.ts';
import type { SandboxShim } from './runtime/sandboxed-shim.ts';
import type { SandboxController, SandboxKey } from './sandbox/controller.ts';
import type { ShimController } from './sandbox/shim-controller.ts';

export class Sandboxes {
  /** By the names that sandboxes have as their sandboxer. */
  readonly controllers: ReadonlyMap<string, SandboxController>;
  /** Kubelet's; undefined when the configuration leaves the CRI out. */
  readonly pods: PodController | undefined;
  readonly #shims: ShimController;

  constructor(shims: ShimController, cri: Cri | undefined) {
    this.#shims = shims;
    const controllers = new Map<string, SandboxController>([['shim', shims]]);
    this.pods = cri && new PodController(cri);
    if (this.pods !== undefined) controllers.set(POD_CONTROLLER, this.pods);
    this.controllers = controllers;
  }

  /**
   * The shim in which tasks of a sandbox are to be made; undefined where each has its own, as in pods.
   * @throws RpcError NotFound for a sandbox that no controller has, FailedPrecondition for one that has ended
   */
  shimOf(key: SandboxKey): SandboxShim | undefined {
    return this.pods?.has(key) === true ? undefined : this.#shims.shimOf(key);
  }
}
