/** Which kind of shim a runtime's name, or the record of a bundle, stands for. */
import type { Logger } from 'pino';
import { Any } from '../../proto/gen/google/protobuf/any.ts';
import type { Bootstrap } from './bootstrap.ts';
import { ForeignShim } from './foreign-shim.ts';
import type { DaemonAddresses, Launcher } from './launcher.ts';
import { foreignOptions, ownOptions } from './options.ts';
import { OwnShim, type ShimSpawn } from './own-shim.ts';
import { resolveRuntime } from './runtime-name.ts';
import { SandboxedShim, type SandboxShim } from './sandboxed-shim.ts';

export interface LaunchersOptions {
  /** The state directory: shims listen in `<state>/s`, runc keeps its state in `<state>/runc`. */
  readonly state: string;
  readonly addresses: DaemonAddresses;
  readonly log: Logger;
  /** Program and first arguments that run Moor's own shim; `shimCommand()` is the one beside this program. */
  readonly shim: readonly string[];
  /** How that is started. */
  readonly spawn: ShimSpawn;
  /** Shims log details. */
  readonly debug: boolean;
}

/** What says which shim is wanted. */
export interface Wanted {
  /** A runtime's name, or the absolute path of a shim. */
  readonly runtime: string;
  /** Runtime options that came with the request; they go before those of the container or the sandbox. */
  readonly options: Any | undefined;
  readonly containerOptions: Any | undefined;
  /** The shim of the sandbox that it belongs to, where that takes tasks. */
  readonly sandbox?: SandboxShim | undefined;
}

export class Launchers {
  readonly own: OwnShim;
  readonly #options: LaunchersOptions;

  constructor(options: LaunchersOptions) {
    const { addresses, state, shim, debug, spawn, log } = options;
    this.#options = options;
    this.own = new OwnShim({ addresses, state, command: shim, debug, spawn, log });
  }

  /**
   * The launcher, and the options as its shim takes them.
   * @throws RpcError as `resolveRuntime` and `ownOptions`
   */
  choose({ runtime, options, containerOptions, sandbox }: Wanted): {
    launcher: Launcher;
    options: Any | undefined;
  } {
    if (sandbox !== undefined) {
      const launcher = new SandboxedShim(this.#foreign(sandbox.runtime, sandbox.binary), sandbox);
      return { launcher, options: foreignOptions(options, containerOptions) };
    }
    const program = resolveRuntime(runtime);
    if (program.kind === 'own') {
      return { launcher: this.own, options: ownOptions(options, containerOptions) };
    }
    const chosen = foreignOptions(options, containerOptions);
    const encoded = chosen && Any.encode(chosen).finish();
    return { launcher: this.#foreign(runtime, program.binary, encoded), options: chosen };
  }

  /** The launcher of a shim that was started before. */
  known(bootstrap: Bootstrap | undefined): Launcher {
    if (bootstrap === undefined || bootstrap.binary === '') return this.own;
    const program = this.#foreign(bootstrap.runtime, bootstrap.binary);
    const { sandbox } = bootstrap;
    return sandbox === undefined ? program : new SandboxedShim(program, { ...bootstrap, sandbox });
  }

  #foreign(runtime: string, binary: string, options?: Uint8Array): ForeignShim {
    const { addresses, debug } = this.#options;
    return new ForeignShim({ runtime, binary, addresses, debug, options });
  }
}
