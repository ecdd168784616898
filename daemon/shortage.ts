/** What a daemon can run out of for a while: descriptors, processes, memory for either. What has failed for it is done when there is some again. */
import type { ChildProcess } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { Code, type RpcError, isCode, resourceExhausted } from '../ttrpc/errors.ts';

const DESCRIPTORS = 'too many open files';
const PROCESSES = 'no more processes can be started';

/** EAGAIN is that of fork(2), where a limit of processes is reached; Node has no call of the daemon's fail with it for another reason. */
const SHORTAGES: { readonly [code: string]: string } = {
  EMFILE: DESCRIPTORS,
  ENFILE: DESCRIPTORS,
  EAGAIN: PROCESSES,
  ENOMEM: 'out of memory',
};

/** Milliseconds until what was impossible is tried again. */
const PAUSE_MS = 500;

/** What there is none of; undefined where something else has failed. */
export function shortage(error: unknown): string | undefined {
  const { code } = error as NodeJS.ErrnoException;
  return typeof code === 'string' ? SHORTAGES[code] : undefined;
}

/** What has failed is possible when something is free again. */
export function isForWant(error: unknown): boolean {
  return isCode(error, Code.ResourceExhausted) || shortage(error) !== undefined;
}

/**
 * Does what has to be done some day, and for as long as something it takes is short, tries again.
 *
 * @param log is told once, with `what`
 * @param goOn whether it is still wanted
 * @throws what the work fails with
 */
export async function whenPossible<T>(
  what: string,
  work: () => Promise<T>,
  { log, goOn = () => true }: { readonly log: Logger; readonly goOn?: () => boolean },
): Promise<T> {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await work();
    } catch (error) {
      if (!isForWant(error) || !goOn()) throw error;
      if (attempt === 0) log.warn({ err: error }, `${what} has to wait`);
    }
    await sleep(PAUSE_MS, undefined, { ref: false });
  }
}

/**
 * What `spawn` of node:child_process has returned, unless there was no descriptor for it: it has no streams then, and its error comes
 * later, where it would end the daemon.
 *
 * @throws RpcError ResourceExhausted
 */
export function started(child: ChildProcess, program: string): void {
  if ((child.stdin as unknown) !== undefined) return;
  child.once('error', () => undefined);
  throw resourceExhausted(`cannot start ${program}: ${DESCRIPTORS}`);
}

/** What Node says as it ends because it cannot start a thread. */
const THREADLESS = /(?:uv_thread|pthread)_create/;

/** What a program on Node has ended for want of, by what it said; libuv says nothing when it has to abort. */
export function starved(said: string, signal?: string | null): string | undefined {
  const isThreadless = said === '' ? signal === 'SIGABRT' : THREADLESS.test(said);
  return isThreadless || said.includes(PROCESSES) ? PROCESSES : undefined;
}

/** What a program on Node is killed for that `endIfStuck` has found. */
export function stuck(program: string): RpcError {
  return resourceExhausted(`${program} has not all of its threads: ${PROCESSES}`);
}

/** The failure of a program to start, where it is for want of something. */
export function unstartable(program: string, error: unknown): RpcError | undefined {
  const what = shortage(error);
  return what === undefined ? undefined : resourceExhausted(`cannot start ${program}: ${what}`, error);
}
