import { rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { closeRange, prctlName } from '../native/native.ts';
import { SandboxDefinition } from '../proto/gen/containerd/runtime/sandbox.ts';
import { ShutdownRequest, TaskDefinition as TaskV2 } from '../proto/gen/containerd/task/v2.ts';
import { TaskDefinition as TaskV3 } from '../proto/gen/containerd/task/v3.ts';
import { ShimDefinition } from '../proto/gen/moor/shim/v1.ts';
import { TtrpcServer } from '../ttrpc/server.ts';
import type { CallContext } from '../ttrpc/service.ts';
import { Berth } from './berth.ts';
import type { Log } from './log.ts';
import { moorService } from './moor-service.ts';
import { Publisher } from './publisher.ts';
import { Reaper } from './reaper.ts';
import { sandboxService } from './sandbox-service.ts';
import { taskService } from './service.ts';
import type { SealedRunc } from './sealed-runc.ts';
import { SALVAGE_SIGNAL, salvage } from './salvage.ts';
import { boundPath } from './socket.ts';

/** How long the last events may take to reach the daemon, and the last bytes a client. */
const FAREWELL_MS = 10_000;

/** Behind the standard descriptors. */
const FIRST_INHERITED = 3;

const NO_CALLER: CallContext = { signal: new AbortController().signal, metadata: new Map() };

export interface ServeOptions {
  readonly namespace: string;
  /** Path of the daemon's ttrpc socket; empty for none. */
  readonly events: string;
  readonly log: Log;
  /** The listening socket. */
  readonly socket: number;
  readonly sealedRunc?: SealedRunc | undefined;
}

/**
 * Serves the task service on a listening socket until it is told to shut down; then takes the socket's file away and
 * resolves. Nothing is left to do but to exit.
 */
export async function serve({ namespace, events, log, socket, sealedRunc }: ServeOptions): Promise<void> {
  prctlName('moor-shim');
  const reaper = new Reaper();
  const publisher = new Publisher(events, namespace, log);
  const { promise: ended, resolve: end } = Promise.withResolvers<{ delivered: Promise<unknown> }>();
  const server = new TtrpcServer({
    onError: (error) => log.warn('a caller or its connection failed', { error }),
    onConnection: () => publisher.poke(),
  });
  const shutdown = (delivered: Promise<unknown>) => end({ delivered });
  const berth = new Berth();
  const service = taskService({ namespace, reaper, publisher, log, sealedRunc, shutdown, berth });
  server.add(TaskV2, service);
  server.add(TaskV3, service);
  server.add(SandboxDefinition, sandboxService({ berth, log, shutdown }));
  server.add(ShimDefinition, moorService({ publisher, berth }));
  // With the shim its container would end: a mistake in one call is no reason for that.
  process.on('uncaughtException', (error) =>
    log.error('a mistake in the shim', { error, stack: error.stack }),
  );
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
    process.on(signal, () => {
      log.info('a signal ends a shim without a container only', { signal });
      void service.shutdown(ShutdownRequest.fromPartial({}), NO_CALLER);
    });
  }
  let ending = false;
  const salvaged = { berth, server, log, socket, bundle: process.cwd() };
  process.on(SALVAGE_SIGNAL, () => {
    if (ending) return;
    salvage(salvaged).catch((error: unknown) =>
      log.error('what others have removed cannot be made again', { error }),
    );
  });
  // What was inherited, the socket too, is passed on otherwise. Whoever has it keeps the socket of a dead shim alive.
  closeRange(FIRST_INHERITED, 'cloexec');
  reaper.start();
  await server.listenFd(socket);
  log.debug('the shim serves');
  const { delivered } = await ended;
  ending = true;
  const path = boundPath(socket);
  if (path !== undefined) rmSync(path, { force: true });
  const giveUp = new AbortController();
  const farewell = Promise.all([delivered, publisher.flush(giveUp.signal)]);
  await Promise.race([farewell, sleep(FAREWELL_MS)]);
  giveUp.abort();
  await farewell.catch((error: unknown) => log.warn('the shim leaves events or output behind', { error }));
  await server.close();
  publisher.close();
  reaper.stop();
  log.debug('the shim ends');
}
