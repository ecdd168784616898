/**
 * The way to a plugin in another process. Calls on it end: with an answer, or within the time that the configuration gives a
 * plugin, whatever has become of it. A plugin that is started again is found by the next call.
 */
import { Client, credentials } from '@grpc/grpc-js';
import { type Wire, ready, serviceOn } from '../../grpc/channel.ts';
import { Line } from '../../grpc/feed.ts';
import { HealthDefinition } from '../../proto/gen/grpc/health/v1.ts';
import { Code, RpcError, isCode, messageOf, toRpcError } from '../../ttrpc/errors.ts';
import type { CallOptions, ServiceClient, ServiceDefinition } from '../../ttrpc/service.ts';
import { milliseconds } from '../schema.ts';
import type { ProxySettings } from './settings.ts';

/** containerd's limit for a message in either direction. */
const MAX_MESSAGE_BYTES = 16 << 20;
/** A plugin that comes back should be found soon; looking for it costs next to nothing. */
const FIRST_BACKOFF_MS = 20;
const MAX_BACKOFF_MS = 200;

type Options = Required<Pick<CallOptions, 'signal' | 'timeout'>> & CallOptions;

/** What a call is made for. */
export interface Purpose {
  readonly namespace?: string;
  readonly lease?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

export class PluginConnection {
  readonly name: string;
  readonly address: string;
  readonly #timeout: number;
  readonly #workTimeout: number;
  readonly #wire: Wire;
  readonly #closed = new AbortController();
  #failure: RpcError | undefined;

  constructor(name: string, { address, timeout, work_timeout: workTimeout }: ProxySettings) {
    this.name = name;
    this.address = address;
    this.#timeout = milliseconds(timeout)!;
    this.#workTimeout = milliseconds(workTimeout)!;
    const grpc = new Client(`unix:${address}`, credentials.createInsecure(), {
      'grpc.default_authority': 'localhost',
      'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
      'grpc.max_send_message_length': MAX_MESSAGE_BYTES,
      'grpc.initial_reconnect_backoff_ms': FIRST_BACKOFF_MS,
      'grpc.max_reconnect_backoff_ms': MAX_BACKOFF_MS,
      'grpc.enable_http_proxy': 0,
      'grpc.service_config_disable_resolution': 1,
      'grpc.use_local_subchannel_pool': 1,
    });
    this.#wire = { grpc, line: new Line(address, MAX_MESSAGE_BYTES), peer: address };
  }

  /** Why the plugin could not be reached when it was last needed; undefined when it could. */
  get failure(): RpcError | undefined {
    return this.#failure;
  }

  service<S extends ServiceDefinition>(definition: S): ServiceClient<S> {
    return serviceOn(this.#wire, definition, []);
  }

  /** Asks for something that takes no time. @throws RpcError what the plugin says; Unavailable, DeadlineExceeded for none */
  quick<T>(purpose: Purpose, action: (options: Options) => Promise<T>): Promise<T> {
    return this.#call(purpose, this.#timeout, action);
  }

  /** Asks for something that may take a while, during which the plugin has to show that it lives. @throws as `quick` */
  async work<T>(purpose: Purpose, action: (options: Options) => Promise<T>): Promise<T> {
    const silent = new AbortController();
    const watching = setInterval(() => {
      this.#check(this.#timeout / 2).catch((error: unknown) => silent.abort(error));
    }, this.#timeout / 2);
    watching.unref();
    const signal = AbortSignal.any([
      silent.signal,
      ...(purpose.signal === undefined ? [] : [purpose.signal]),
    ]);
    try {
      return await this.#call({ ...purpose, signal }, this.#workTimeout, action);
    } catch (error) {
      if (silent.signal.aborted && purpose.signal?.aborted !== true) throw this.#failed(silent.signal.reason);
      throw error;
    } finally {
      clearInterval(watching);
    }
  }

  /** @throws RpcError Unavailable, DeadlineExceeded when nobody answers */
  async check(): Promise<void> {
    try {
      await this.#check(this.#timeout);
      this.#failure = undefined;
    } catch (error) {
      throw this.#failed(error);
    }
  }

  /** Ends the connection. Calls that wait fail. */
  close(): void {
    this.#closed.abort();
    this.#wire.grpc.close();
    this.#wire.line.close();
  }

  async #check(timeout: number): Promise<void> {
    const { signal } = this.#closed;
    try {
      await this.service(HealthDefinition).check({ service: '' }, { timeout, signal });
    } catch (error) {
      // Whoever answers that he does not know this service is well.
      if (isGone(error)) throw error;
    }
  }

  async #call<T>(
    { namespace, lease, signal }: Purpose,
    timeout: number,
    action: (options: Options) => Promise<T>,
  ): Promise<T> {
    const metadata: [string, string][] = [];
    if (namespace !== undefined) metadata.push(['containerd-namespace', namespace]);
    if (lease !== undefined) metadata.push(['containerd-lease', lease]);
    const ends = AbortSignal.any([this.#closed.signal, ...(signal === undefined ? [] : [signal])]);
    const call = (): Promise<T> => action({ signal: ends, timeout, metadata });
    try {
      const answer = await call().catch(async (error: unknown) => {
        // Nobody listened then, and it is a while until the next attempt: somebody may listen by now.
        if (!isUnsent(error) || ends.aborted || !(await this.#connects())) throw error;
        return call();
      });
      this.#failure = undefined;
      return answer;
    } catch (error) {
      if (isGone(error) && !ends.aborted) throw this.#failed(error);
      if (!ends.aborted) this.#failure = undefined;
      throw error;
    }
  }

  async #connects(): Promise<boolean> {
    try {
      await ready(this.#wire, 2 * MAX_BACKOFF_MS);
      return true;
    } catch {
      return false;
    }
  }

  #failed(error: unknown): RpcError {
    const { code } = toRpcError(error);
    this.#failure = new RpcError(code, `plugin ${this.name}: ${messageOf(error)}`, { cause: error });
    return this.#failure;
  }
}

/** Whether the plugin has seen nothing of the call. */
function isUnsent(error: unknown): boolean {
  return isCode(error, Code.Unavailable) && error.message.startsWith('cannot connect to ');
}

function isGone(error: unknown): boolean {
  return isCode(error, Code.Unavailable) || isCode(error, Code.DeadlineExceeded);
}
