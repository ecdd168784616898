import { resolve } from 'node:path';
import { Client as GrpcClient, credentials } from '@grpc/grpc-js';
import { abortion } from '../ttrpc/deadline.ts';
import { type Headers, ready, serviceOn, type Wire } from '../grpc/channel.ts';
import { Line } from '../grpc/feed.ts';
import type { ServiceClient, ServiceDefinition } from '../ttrpc/service.ts';

/** Where Moor's daemon listens unless it is told otherwise. */
export const DEFAULT_ADDRESS = '/run/moor/moor.sock';

/** containerd's limit for a message in either direction. */
const MAX_MESSAGE_BYTES = 16 << 20;

/** A daemon that restarts is back in no time; longer pauses between attempts only keep its clients from it. */
const MAX_BACKOFF_MS = 200;
const FIRST_BACKOFF_MS = 20;

/**
 * One gRPC connection to a daemon's unix socket. It connects with the first call and again after it was lost: a call
 * that is made while nobody listens fails with Unavailable.
 */
export class Connection {
  /** The socket's path. */
  readonly address: string;
  readonly #wire: Wire;

  /** @param address a path, or one with `unix:` or `unix://` before it */
  constructor(address: string = DEFAULT_ADDRESS) {
    this.address = pathOf(address);
    const grpc = new GrpcClient(`unix:${this.address}`, credentials.createInsecure(), {
      'grpc.default_authority': 'localhost',
      'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
      'grpc.max_send_message_length': MAX_MESSAGE_BYTES,
      'grpc.initial_reconnect_backoff_ms': FIRST_BACKOFF_MS,
      'grpc.max_reconnect_backoff_ms': MAX_BACKOFF_MS,
      'grpc.enable_http_proxy': 0,
      'grpc.service_config_disable_resolution': 1,
      // Connections to the same address are not shared, so that closing one closes it.
      'grpc.use_local_subchannel_pool': 1,
    });
    this.#wire = { grpc, line: new Line(this.address, MAX_MESSAGE_BYTES), peer: this.address };
  }

  /** The functions that call a service of this daemon, each call with these headers. They fail with RpcErrors only. */
  service<S extends ServiceDefinition>(definition: S, headers: Headers = []): ServiceClient<S> {
    return serviceOn(this.#wire, definition, headers);
  }

  /**
   * Waits until the daemon takes the connection.
   *
   * @param timeout milliseconds
   * @throws RpcError Unavailable when it has not by then, Cancelled when `signal` says so
   */
  async ready(timeout: number, signal?: AbortSignal): Promise<void> {
    const stopped = signal === undefined ? new Promise<never>(() => {}) : abortedBy(signal);
    await Promise.race([ready(this.#wire, timeout), stopped]);
  }

  /** Ends the connection. Calls that wait fail. */
  close(): void {
    this.#wire.grpc.close();
    this.#wire.line.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function abortedBy(signal: AbortSignal): Promise<never> {
  const { promise, reject } = Promise.withResolvers<never>();
  if (signal.aborted) reject(abortion(signal));
  else signal.addEventListener('abort', () => reject(abortion(signal)), { once: true });
  return promise;
}

function pathOf(address: string): string {
  return resolve(address.replace(/^unix:(?:\/\/)?/, ''));
}
