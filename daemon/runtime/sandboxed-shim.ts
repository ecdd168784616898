/** A task in the shim of its sandbox: nothing is started for it, and nothing of the shim ends with it. */
import type { DeleteResponse } from '../../proto/gen/containerd/task/v2.ts';
import type { Bootstrap } from './bootstrap.ts';
import type { Bundle } from './bundle.ts';
import type { ForeignShim } from './foreign-shim.ts';
import type { Launcher, StartedShim } from './launcher.ts';

/** Where a sandbox's shim is. */
export type SandboxShim = Bootstrap & { readonly sandbox: string };

export class SandboxedShim implements Launcher {
  readonly own = false;
  readonly runtime: string;
  readonly #program: ForeignShim;
  readonly #shim: SandboxShim;

  /** @param program of the shim; it cleans up after a task whose sandbox has died */
  constructor(program: ForeignShim, shim: SandboxShim) {
    this.runtime = program.runtime;
    this.#program = program;
    this.#shim = shim;
  }

  async start(bundle: Bundle): Promise<StartedShim> {
    bundle.writeBootstrap(this.#shim, 'first');
    return { bootstrap: this.#shim, pid: undefined };
  }

  deleteDead(bundle: Bundle): Promise<DeleteResponse> {
    return this.#program.deleteDead(bundle);
  }

  /** The shim has the log of its sandbox. */
  followLog(): () => void {
    return () => {};
  }
}
