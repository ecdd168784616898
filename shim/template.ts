import {
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { childPids, fork, listenUnix, Poll, setChildSubreaper, setSid, waitPid } from '../native/native.ts';
import { messageOf } from '../ttrpc/errors.ts';
import { Log } from './log.ts';
import { Reaper } from './reaper.ts';
import { SealedRunc } from './sealed-runc.ts';
import { warmUp } from './warm-up.ts';

/** The descriptor that the template inherits its connection with the daemon as. */
const DAEMON_FD = 3;
const [STDOUT, STDERR] = [1, 2];
const BACKLOG = 16;

/** What the daemon asks for, one JSON object a line. */
export interface ForkRequest {
  /** Names the answer. */
  readonly sequence: number;
  readonly namespace: string;
  readonly id: string;
  /** Path of the daemon's gRPC socket. */
  readonly address: string;
  readonly bundle: string;
  /** Path of the socket to listen on; nobody has it yet. */
  readonly socket: string;
  readonly debug: boolean;
}

/** What a forked shim goes on with, in a process of its own. */
export interface Forked extends ForkRequest {
  /** The listening socket. */
  readonly listener: number;
  readonly sealedRunc: SealedRunc | undefined;
}

/**
 * Waits with the shim's code loaded, and forks one shim for each line the daemon writes; answers with `{"sequence", "pid"}` or
 * `{"sequence", "error"}`. The process ends with the daemon's connection. Its shims live on.
 *
 * @param scratch a directory for the warm-up
 * @returns once in each forked shim, and never in the template itself
 */
export async function serveTemplate(scratch: string): Promise<Forked> {
  await warmUp(scratch);
  let sealedRunc = await sealRunc(scratch);
  let isSealing = false;
  const { promise, resolve, reject } = Promise.withResolvers<Forked>();
  let isTemplate = true;
  const lines = new Lines();
  const waiting: string[] = [];
  const reap = () => {
    for (const pid of childPids()) waitPid(pid);
  };
  process.on('SIGCHLD', reap);
  const readRequests = () => {
    const read = lines.read(DAEMON_FD);
    if (read === undefined) process.exit(0);
    waiting.push(...read);
  };
  const poll = new Poll(DAEMON_FD, 'readable', () => {
    readRequests();
    if (waiting.length > 0) setImmediate(forkNext);
  });

  // Not from the poll's own callback: what the loop has fetched along with that event would be handled by both processes.
  function forkNext(): void {
    if (!isTemplate || isSealing) return;
    if (sealedRunc?.isCurrent === false) return renewRunc(sealedRunc);
    // A daemon that has died meanwhile is not served any more: the next one knows nothing of the shim.
    readRequests();
    const line = waiting.shift();
    if (line === undefined) return;
    const forked = forkFor(line, sealedRunc);
    if (forked === undefined) {
      setImmediate(forkNext);
      return;
    }
    isTemplate = false;
    poll.close();
    closeSync(DAEMON_FD);
    process.off('SIGCHLD', reap);
    try {
      becomeOwnProcess(forked);
      resolve(forked);
    } catch (error) {
      rmSync(forked.socket, { force: true });
      reject(error);
    }
  }

  /** Another runc was installed; no fork can be made while a child of this process is at work. */
  function renewRunc(old: SealedRunc): void {
    isSealing = true;
    old.close();
    // It would take the exit that is waited for.
    process.off('SIGCHLD', reap);
    void sealRunc(scratch).then((renewed) => {
      sealedRunc = renewed;
      isSealing = false;
      process.on('SIGCHLD', reap);
      reap();
      setImmediate(forkNext);
    });
  }
  return await promise;
}

/** @returns undefined where shims start runc as it is; why is in the log */
async function sealRunc(scratch: string): Promise<SealedRunc | undefined> {
  const log = new Log(STDERR, 'warn');
  const reaper = new Reaper();
  mkdirSync(scratch, { recursive: true, mode: 0o700 });
  reaper.start();
  try {
    return await SealedRunc.make(scratch, reaper, (why) => log.warn(why));
  } finally {
    reaper.stop();
    setChildSubreaper(false);
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** @returns the request in the shim, undefined in the template, which has answered the daemon */
function forkFor(line: string, sealedRunc: SealedRunc | undefined): Forked | undefined {
  const request = JSON.parse(line) as ForkRequest;
  const { sequence } = request;
  let listener: number;
  let pid: number;
  try {
    listener = listenUnix(request.socket, BACKLOG);
    try {
      pid = fork();
    } catch (error) {
      closeSync(listener);
      throw error;
    }
  } catch (error) {
    answer({ sequence, error: messageOf(error) });
    return undefined;
  }
  if (pid > 0) {
    closeSync(listener);
    answer({ sequence, pid });
    return undefined;
  }
  return { ...request, listener, sealedRunc };
}

function answer(value: object): void {
  const bytes = Buffer.from(`${JSON.stringify(value)}\n`);
  try {
    for (let written = 0; written < bytes.length;) written += writeSync(DAEMON_FD, bytes, written);
  } catch (error) {
    // The daemon has died; the end of its connection is read next.
    if ((error as NodeJS.ErrnoException).code !== 'EPIPE') throw error;
  }
}

/**
 * A session, a working directory, a log, a name: what a process that was started afresh would have of its own.
 * @throws Error when the bundle is not (any more) one that this shim was asked for
 */
function becomeOwnProcess({ namespace, id, address, bundle, socket }: ForkRequest): void {
  setSid();
  process.chdir(bundle);
  // The daemon may have been replaced, and its successor have made the bundle anew, with another shim.
  if (!readFileSync('bootstrap.json', 'utf8').includes(JSON.stringify(socket))) {
    throw new Error(`the bundle ${bundle} is not for the shim at ${socket}`);
  }
  // The lowest free descriptor is taken (open(2)), so these become standard output and standard error.
  for (const standard of [STDOUT, STDERR]) {
    closeSync(standard);
    openSync(join(bundle, 'log'), constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND, 0o600);
  }
  process.env['NAMESPACE'] = namespace;
  process.title = `moor-shim -namespace ${namespace} -id ${id} -address ${address}`;
}

/** Splits what is read into lines. */
class Lines {
  readonly #buffer = Buffer.alloc(16 * 1024);
  #rest = '';

  /** @returns complete lines, or undefined at the end of the stream */
  read(fd: number): string[] | undefined {
    let length: number;
    try {
      length = readSync(fd, this.#buffer);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return [];
      throw error;
    }
    if (length === 0) return undefined;
    const lines = (this.#rest + this.#buffer.toString('utf8', 0, length)).split('\n');
    this.#rest = lines.pop() ?? '';
    return lines;
  }
}
