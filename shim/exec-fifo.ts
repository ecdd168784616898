/**
 * The FIFO that runc's init opens for writing, and waits in until somebody reads: all that `runc start` does to a created container
 * is to read it and to remove it (libcontainer, `Container.Exec`). Doing that here saves a process of a Go program that
 * first has to load the container's state: 6 to 9 ms of every start.
 */
import { constants, existsSync, lstatSync, openSync, readSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Poll } from '../native/native.ts';
import { failedPrecondition, unavailable } from '../ttrpc/errors.ts';
import { Descriptor } from './descriptor.ts';

/** As long as a call of the runtime may take. */
const TIMEOUT_MS = 120_000;

/**
 * Finds the FIFO of a created container.
 *
 * @param directory what the runtime keeps of the container
 * @returns undefined where it is not runc's: crun has a FIFO of that name which is read by its init, and no state.json
 */
export function findExecFifo(directory: string): string | undefined {
  const path = join(directory, 'exec.fifo');
  if (!existsSync(join(directory, 'state.json'))) return undefined;
  return lstatSync(path, { throwIfNoEntry: false })?.isFIFO() === true ? path : undefined;
}

/**
 * Lets the init go on to the container's program. Resolves when it has, a moment before it executes it.
 *
 * @param died settles when the init has ended
 * @throws RpcError FailedPrecondition when it has ended before or has gone on already, Unavailable when it does not go on
 */
export async function releaseExecFifo(path: string, died: Promise<unknown>): Promise<void> {
  // Not blocking: an init that is dead will never come.
  using fifo = new Descriptor(openSync(path, constants.O_RDONLY | constants.O_NONBLOCK));
  const over = new AbortController();
  try {
    await Promise.race([
      written(fifo.fd, over.signal),
      died.then(dead, dead),
      sleep(TIMEOUT_MS, undefined, { signal: over.signal, ref: false }).then(() => {
        throw unavailable(`the container's init does not come to ${path}`);
      }),
    ]);
  } finally {
    over.abort();
  }
  unlinkSync(path);
}

function dead(): never {
  throw failedPrecondition('OCI runtime start failed: container process is already dead');
}

/** Resolves when something has been read. */
async function written(fd: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const byte = Buffer.alloc(1);
  using _ = new Poll(fd, 'readable', (error) => {
    if (error !== undefined) return reject(error);
    try {
      // The end without a byte: somebody else has read it.
      if (readSync(fd, byte) > 0) resolve();
      else reject(failedPrecondition('OCI runtime start failed: cannot start an already running container'));
    } catch (failure) {
      if ((failure as NodeJS.ErrnoException).code !== 'EAGAIN') reject(failure);
    }
  });
  signal.addEventListener('abort', () => resolve(), { once: true });
  await promise;
}
