/** Connections to what listens inside a pod. */
import { closeSync } from 'node:fs';
import { Socket } from 'node:net';
import { Poll, finishConnect, startConnect } from '../../../native/native.ts';
import { messageOf, unavailable } from '../../../ttrpc/errors.ts';
import { inNamespace } from '../../network/netns.ts';

/** A server that is there answers at once: it is on this host. */
const TIMEOUT_MS = 10_000;
/** What `localhost` is, in the order in which servers listen there. */
const LOCALHOST = ['127.0.0.1', '::1'];

/**
 * Connects to a port of localhost.
 *
 * @param network the file of the network namespace; the daemon's own when undefined
 * @throws RpcError Unavailable with what each address has said
 */
export async function dial(network: string | undefined, port: number, signal: AbortSignal): Promise<Socket> {
  const refusals: string[] = [];
  for (const address of LOCALHOST) {
    signal.throwIfAborted();
    try {
      return await connect(network, address, port, signal);
    } catch (error) {
      refusals.push(messageOf(error));
    }
  }
  throw unavailable(`nothing answers at port ${port} of localhost: ${refusals.join('; ')}`);
}

async function connect(
  network: string | undefined,
  address: string,
  port: number,
  signal: AbortSignal,
): Promise<Socket> {
  const begin = (): number => startConnect(address, port);
  const fd = network === undefined ? begin() : inNamespace(network, begin);
  try {
    await writable(fd, signal);
    finishConnect(fd);
    return new Socket({ fd, allowHalfOpen: true, readable: true, writable: true });
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

async function writable(fd: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const timeout = AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]);
  const abort = (): void => reject(timeout.reason as Error);
  timeout.addEventListener('abort', abort, { once: true });
  const poll = new Poll(fd, 'writable', (error) => (error === undefined ? resolve() : reject(error)));
  try {
    await promise;
  } finally {
    poll.close();
    timeout.removeEventListener('abort', abort);
  }
}
