/** A client's connection to a port of a pod, and back: the same whatever protocol the client speaks. */
import type { Duplex, Writable } from 'node:stream';
import { finished, pipeline } from 'node:stream/promises';
import { setTimeout as after } from 'node:timers/promises';
import { messageOf } from '../../../ttrpc/errors.ts';
import { dial } from './dial.ts';
import type { PortForwardSession, Targets } from './session.ts';

/** For a client to end its side, when the server in the pod has ended its own. */
const GRACE_MS = 10_000;

/** Serves one connection. Never rejects: what goes wrong is told by the error stream, on which nothing means that all went well. */
export async function forward(
  { podSandboxId }: PortForwardSession,
  port: number,
  streams: { readonly data: Duplex; readonly error: Writable },
  targets: Targets,
  gone: AbortSignal,
): Promise<void> {
  const { data, error } = streams;
  try {
    const network = await targets.network(podSandboxId);
    const socket = await dial(network, port, gone);
    try {
      await joined(data, socket);
    } finally {
      socket.destroy();
    }
    error.end();
  } catch (failure) {
    error.end(`error forwarding port ${port} to pod ${podSandboxId}: ${messageOf(failure)}`);
  }
  await finished(error, { readable: false }).catch(() => undefined);
  data.destroy();
}

/** Each side may end what it sends and go on receiving. */
async function joined(client: Duplex, server: Duplex): Promise<void> {
  const quiet = (): void => undefined;
  const up = pipeline(client, server).catch(quiet);
  const down = pipeline(server, client).catch(quiet);
  const late = new AbortController();
  const grace = down.then(() => after(GRACE_MS, undefined, { signal: late.signal, ref: false })).catch(quiet);
  await Promise.race([Promise.all([up, down]), grace]);
  late.abort();
}
