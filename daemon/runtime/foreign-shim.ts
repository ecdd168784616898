/** Starting other people's shims, by the contract that containerd has with them. */
import type { Logger } from 'pino';
import { DeleteResponse } from '../../proto/gen/containerd/task/v2.ts';
import { internal, unimplemented } from '../../ttrpc/errors.ts';
import type { Bootstrap, TaskApiVersion } from './bootstrap.ts';
import type { Bundle } from './bundle.ts';
import { invoke } from './invocation.ts';
import { type DaemonAddresses, DELETE_TIMEOUT_MS, type Launcher, type StartedShim } from './launcher.ts';
import { followLogFifo } from './shim-log.ts';

export interface ForeignShimOptions {
  /** The runtime's name as the client gave it. */
  readonly runtime: string;
  /** Absolute path of the program. */
  readonly binary: string;
  readonly addresses: DaemonAddresses;
  readonly debug: boolean;
  /** The runtime's options, an encoded Any: the program reads them on its input. Only `start` needs them. */
  readonly options?: Uint8Array | undefined;
}

const START_TIMEOUT_MS = 30_000;

export class ForeignShim implements Launcher {
  readonly own = false;
  readonly runtime: string;
  readonly #options: ForeignShimOptions;

  constructor(options: ForeignShimOptions) {
    this.#options = options;
    this.runtime = options.runtime;
  }

  async start(bundle: Bundle): Promise<StartedShim> {
    const { runtime, binary, options } = this.#options;
    const record = { runtime, binary, apiVersion: 2, address: '' } as const;
    bundle.writeBootstrap(record, 'first');
    const outcome = await invoke({
      command: [binary, ...this.#flags(bundle), 'start'],
      cwd: bundle.path,
      env: this.#environment(bundle),
      input: options,
      timeout: START_TIMEOUT_MS,
    });
    const bootstrap = { ...record, ...parseStartAnswer(binary, outcome.stdout.toString('utf8')) };
    bundle.writeBootstrap(bootstrap, 'replace');
    return { bootstrap, pid: undefined };
  }

  async deleteDead(bundle: Bundle): Promise<DeleteResponse> {
    const outcome = await invoke({
      command: [this.#options.binary, ...this.#flags(bundle), '-bundle', bundle.path, 'delete'],
      cwd: bundle.path,
      env: this.#environment(bundle),
      timeout: DELETE_TIMEOUT_MS,
    });
    return DeleteResponse.decode(outcome.stdout);
  }

  followLog(bundle: Bundle, log: Logger): () => void {
    return followLogFifo(bundle.log, log);
  }

  #flags({ namespace, id }: Bundle): string[] {
    const { addresses, debug } = this.#options;
    // Shims of the first generation published events by running this program; today's take the flag and use ttrpc.
    const publish = process.argv[1] ?? process.execPath;
    const flags = [
      '-namespace',
      namespace,
      '-address',
      addresses.grpc,
      '-publish-binary',
      publish,
      '-id',
      id,
    ];
    return debug ? [...flags, '-debug'] : flags;
  }

  #environment({ namespace }: Bundle): Record<string, string | undefined> {
    const { grpc, ttrpc } = this.#options.addresses;
    return {
      ...process.env,
      NOTIFY_SOCKET: undefined,
      MOOR_FAILPOINTS: undefined,
      TTRPC_ADDRESS: ttrpc,
      GRPC_ADDRESS: grpc,
      NAMESPACE: namespace,
      MAX_SHIM_VERSION: '3',
    };
  }
}

interface StartAnswer {
  readonly address: string;
  readonly apiVersion: TaskApiVersion;
}

/**
 * What `start` prints: the bare address of older shims, or JSON with version and protocol.
 * @throws RpcError Internal for anything else, Unimplemented for a version or protocol this daemon does not speak
 */
export function parseStartAnswer(binary: string, output: string): StartAnswer {
  const text = output.trim();
  if (!text.startsWith('{')) return { address: socketAddress(binary, text), apiVersion: 2 };
  let answer: { version?: unknown; address?: unknown; protocol?: unknown };
  try {
    answer = JSON.parse(text) as typeof answer;
  } catch (error) {
    throw internal(`${binary} answered start with what is not JSON: ${text.slice(0, 200)}`, error);
  }
  const { version, address, protocol } = answer;
  if (protocol !== undefined && protocol !== '' && protocol !== 'ttrpc') {
    throw unimplemented(`${binary} speaks ${JSON.stringify(protocol)}; this daemon speaks ttrpc to shims`);
  }
  if (version !== 2 && version !== 3) {
    throw unimplemented(
      `${binary} speaks version ${JSON.stringify(version)} of the task service; 2 and 3 are known`,
    );
  }
  return { address: socketAddress(binary, typeof address === 'string' ? address : ''), apiVersion: version };
}

/** An address without a scheme is an abstract socket's name, as containerd has it. */
export function socketAddress(binary: string, address: string): string {
  if (address.startsWith('unix://')) return address.slice('unix://'.length);
  if (address === '' || /\s/.test(address)) {
    throw internal(`${binary} answered start without an address: ${JSON.stringify(address.slice(0, 200))}`);
  }
  if (/^[a-z]+:\/\//.test(address))
    throw unimplemented(`${binary} listens on ${address}; unix sockets are known`);
  return address.startsWith('@') ? address : `@${address}`;
}

/** Where a shim listens whose daemon was gone before it could say so; undefined when it has not come so far. */
export function foreignAddress(bundle: Bundle, { binary }: Bootstrap): string | undefined {
  const address = bundle.readForeignAddress();
  if (address === undefined) return undefined;
  try {
    return socketAddress(binary, address);
  } catch {
    return undefined;
  }
}
