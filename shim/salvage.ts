/**
 * What a shim does when its bundle or its socket have been removed under it, as a wrong rule of tmpfiles does: it makes them again. The
 * daemon asks for it by a signal, as there is no socket to ask by. That is SIGURG, which a shim that does not know of this ignores.
 */
import { closeSync, constants, existsSync, mkdirSync, openSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TtrpcServer } from '../ttrpc/server.ts';
import type { Berth } from './berth.ts';
import type { Log } from './log.ts';
import { boundPath, listenPrivately } from './socket.ts';

export const SALVAGE_SIGNAL = 'SIGURG';

const [STDOUT, STDERR] = [1, 2];

export interface Salvage {
  readonly berth: Berth;
  readonly server: TtrpcServer;
  readonly log: Log;
  /** The listening socket. */
  readonly socket: number;
  /** The shim's working directory. */
  readonly bundle: string;
}

/**
 * Makes everything again that is gone. `address` in the bundle is written last and says that the rest is there.
 * @throws Error when something cannot be made
 */
export async function salvage({ berth, server, log, socket, bundle }: Salvage): Promise<void> {
  const path = boundPath(socket);
  if (path === undefined) return;
  mkdirSync(bundle, { recursive: true, mode: 0o711 });
  process.chdir(bundle);
  if (!existsSync(join(bundle, 'log'))) reopenLog(bundle);
  for (const container of berth.containers) container.restoreFiles();
  if (!existsSync(path)) await server.listenFd(listenPrivately(path));
  const address = join(bundle, 'address');
  writeFileSync(`${address}.new`, `unix://${path}`, { mode: 0o600 });
  renameSync(`${address}.new`, address);
  log.warn('what others had removed of the bundle, or the socket, is there again');
}

/** The lowest free descriptor is taken (open(2)), so these become standard output and standard error. */
function reopenLog(bundle: string): void {
  for (const standard of [STDOUT, STDERR]) {
    closeSync(standard);
    openSync(join(bundle, 'log'), constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND, 0o600);
  }
}
