/** Whether this process, the template, can be forked. native/fork.ts tells the conditions; each is checked here before the first shim. */
import { randomBytes, randomInt, randomUUID } from 'node:crypto';
import { closeSync, readdirSync, readFileSync, writeSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { exitNow, fork, getPid, pipe, setChildSubreaper } from '../native/native.ts';
import { messageOf } from '../ttrpc/errors.ts';
import { type Exit, Reaper } from './reaper.ts';

/** Threads that Node starts whatever it is told, and that idle; the names are cut to the kernel's 15 bytes. */
const KNOWN_THREADS: ReadonlySet<string> = new Set([
  'DelayedTaskSche',
  'node-V8Worker',
  'libuv-worker',
  'SignalInspector',
]);
const FLAGS = ['--single-threaded', '--v8-pool-size=1'];
const REHEARSAL_MS = 20_000;

/** @returns why not, in words for the daemon's log; undefined when it can */
export async function unfitness(): Promise<string | undefined> {
  return flaw() ?? (await rehearse());
}

/** What can be seen without trying. */
function flaw(): string | undefined {
  const flag = FLAGS.find((each) => !process.execArgv.includes(each));
  if (flag !== undefined) return `Node runs without ${flag}`;
  if (process.env['UV_USE_IO_URING'] !== '0') return 'UV_USE_IO_URING is not 0: completions would be shared';
  const threads = threadNames();
  const strange = threads.find((name) => !KNOWN_THREADS.has(name));
  if (strange !== undefined) return `the thread ${strange} would be missing in a forked process`;
  const workers = threads.filter((name) => name === 'node-V8Worker').length;
  return workers > 1 ? `V8 has ${workers} worker threads` : undefined;
}

/** Of all threads but the main one. */
function threadNames(): string[] {
  return readdirSync('/proc/self/task')
    .filter((id) => id !== String(getPid()))
    .map((id) => readFileSync(`/proc/self/task/${id}/comm`, 'latin1').trimEnd());
}

/** What a rehearsing child has found itself to be. */
interface Finding {
  readonly pid: number;
  /** None of them may be a sibling's. */
  readonly randoms: readonly (string | number)[];
}

/** Forks two processes that do what shims live on: a timer, a file, and an end. */
async function rehearse(): Promise<string | undefined> {
  const reaper = new Reaper();
  reaper.start();
  try {
    const [one, other] = [await rehearseOne(reaper), await rehearseOne(reaper)];
    const isShared = one.randoms.some((random, index) => random === other.randoms[index]);
    return isShared ? 'forked processes draw the same random numbers' : undefined;
  } catch (error) {
    return messageOf(error);
  } finally {
    reaper.stop();
    setChildSubreaper(false);
  }
}

/** @throws Error saying in which way the child failed */
async function rehearseOne(reaper: Reaper): Promise<Finding> {
  const { read, write } = pipe();
  using expectation = reaper.expect();
  let pid: number;
  try {
    pid = fork();
    if (pid === 0) return await beChild(write);
  } catch (error) {
    closeSync(read);
    throw error;
  } finally {
    closeSync(write);
  }
  const timer = setTimeout(() => process.kill(pid, 'SIGKILL'), REHEARSAL_MS);
  const [said, exit] = await Promise.all([text(new Socket({ fd: read })), expectation.exitOf(pid)]);
  clearTimeout(timer);
  if (exit.status !== 0) throw new Error(failure(exit, said));
  const finding = JSON.parse(said) as Finding;
  if (finding.pid !== pid) throw new Error(`a forked process takes itself for ${finding.pid}`);
  return finding;
}

function failure({ status }: Exit, said: string): string {
  return status > 128
    ? `a forked process ended by signal ${status - 128}`
    : `a forked process failed: ${said || `exit status ${status}`}`;
}

async function beChild(write: number): Promise<never> {
  try {
    await sleep(1);
    await readFile('/proc/self/stat');
    const randoms = [Math.random(), randomUUID(), randomInt(2 ** 47), randomBytes(8).toString('hex')];
    writeSync(write, JSON.stringify({ pid: process.pid, randoms } satisfies Finding));
  } catch (error) {
    writeSync(write, messageOf(error));
    exitNow(1);
  }
  exitNow(0);
}
