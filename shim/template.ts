import { closeSync, constants, mkdirSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { forkForLines, listenUnix, setChildSubreaper, setSid } from '../native/native.ts';
import { messageOf } from '../ttrpc/errors.ts';
import { unfitness } from './fitness.ts';
import { Log } from './log.ts';
import { Reaper } from './reaper.ts';
import { runcPaths, SealedRunc } from './sealed-runc.ts';
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
 * Waits with the shim's code loaded, and forks one shim for each line the daemon writes. Says `{"ready": true}` first, or
 * `{"unfit": "why"}` where forking is not safe, and ends then. The shim answers with `{"sequence", "pid"}`
 * once it listens, or with `{"sequence", "error"}` and ends. The process ends with the daemon's connection. Its shims live on.
 *
 * @param scratch a directory for the warm-up
 * @returns once in each forked shim, and never in the template itself
 */
export async function serveTemplate(scratch: string): Promise<Forked> {
  await warmUp(scratch);
  const unfit = await unfitness();
  answer(unfit === undefined ? { ready: true } : { unfit });
  if (unfit !== undefined) process.exit(0);
  let sealedRunc = await sealRunc(scratch);
  for (;;) {
    // No callback of the loop is under way then that would go on in the shim.
    await new Promise(setImmediate);
    const outcome = forkForLines(DAEMON_FD, runcPaths());
    switch (outcome.kind) {
      case 'child':
        return becomeShim(JSON.parse(outcome.line) as ForkRequest, sealedRunc);
      case 'refused': {
        const { sequence } = JSON.parse(outcome.line) as ForkRequest;
        answer({ sequence, error: messageOf(outcome.error) });
        break;
      }
      case 'changed':
        if (sealedRunc?.isCurrent === true) break;
        sealedRunc?.close();
        sealedRunc = await sealRunc(scratch);
        break;
      case 'closed':
        process.exit(0);
    }
  }
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

/** @throws Error when this shim cannot be; the daemon has been told */
function becomeShim(request: ForkRequest, sealedRunc: SealedRunc | undefined): Forked {
  const { sequence, socket } = request;
  let listener: number | undefined;
  try {
    listener = listenUnix(socket, BACKLOG);
    becomeOwnProcess(request);
  } catch (error) {
    if (listener !== undefined) rmSync(socket, { force: true });
    answer({ sequence, error: messageOf(error) });
    throw error;
  }
  answer({ sequence, pid: process.pid });
  closeSync(DAEMON_FD);
  return { ...request, listener, sealedRunc };
}

function answer(value: object): void {
  const bytes = Buffer.from(`${JSON.stringify(value)}\n`);
  try {
    for (let written = 0; written < bytes.length;) written += writeSync(DAEMON_FD, bytes, written);
  } catch (error) {
    // The daemon has died. Its successor finds the bundle, asks the shim, and decides.
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
