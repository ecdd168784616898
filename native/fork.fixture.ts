/**
 * The program that fork.test.ts runs: a template that forks children, each doing one scenario. It prints one line of JSON with
 * what the children reported and how they ended.
 */
import { execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { eventfd, exitNow, fork, getPid, pidfdOpen, Poll, waitPid, type ExitStatus } from './native.ts';

export interface Report {
  pid: number;
  kernelPid: number;
  random: string;
  /** Memory of this process alone, in kB: right after the fork, and after the work. */
  privateAtFork: number;
  privateAfterWork: number;
  /** Mappings that are still marked "do not copy". */
  uncopied: number;
  work: string[];
}

export interface Outcome {
  forkMilliseconds: number[];
  statuses: ExitStatus[];
  reports: Report[];
}

const folder = mkdtempSync(join(tmpdir(), 'moor-fork-'));

function privateMemory(): number {
  const rollup = readFileSync('/proc/self/smaps_rollup', 'latin1');
  return [...rollup.matchAll(/^Private_\w+:\s+(\d+) kB/gm)].reduce((sum, match) => sum + Number(match[1]), 0);
}

function uncopied(): number {
  return readFileSync('/proc/self/smaps', 'latin1').match(/^VmFlags:.* dc\b/gm)?.length ?? 0;
}

/** What a shim needs: timers, files, processes, a served socket, descriptors on the loop. */
async function work(index: number): Promise<string[]> {
  const done: string[] = [];
  for (let tick = 0; tick < 3; tick++) await delay(1);
  done.push('timers');
  done.push(`file ${(await readFile('/proc/self/stat', 'latin1')).startsWith(`${getPid()} `)}`);

  const child = spawn('sh', ['-c', `cat; exit ${index}`], { stdio: ['pipe', 'pipe', 'inherit'] });
  child.stdin.end('through cat');
  const [output] = (await once(child.stdout, 'data')) as [Buffer];
  const [code] = (await once(child, 'close')) as [number];
  done.push(`spawn ${output.toString()} ${code}`);
  done.push(`exec ${(await promisify(execFile)('echo', ['-n', 'hi'])).stdout}`);

  const server = createServer((peer) => peer.pipe(peer)).listen(join(folder, `${index}.sock`));
  await once(server, 'listening');
  const client = connect(join(folder, `${index}.sock`));
  client.write('ping');
  const [echo] = (await once(client, 'data')) as [Buffer];
  client.destroy();
  server.close();
  done.push(`socket ${echo.toString()}`);

  const fd = eventfd();
  await new Promise<void>((resolve) => {
    const poll = new Poll(fd, 'readable', () => {
      poll.close();
      resolve();
    });
    writeFileSync(fd, new BigUint64Array([1n]));
  });
  closeSync(fd);
  done.push('poll');
  return done;
}

/** Enough garbage and hot code for V8 to collect and optimize, which it otherwise does on other threads. */
function burn(): number {
  let sum = 0;
  const kept: object[][] = [];
  const hot = (x: number) => {
    let total = 0;
    for (let i = 0; i < 1000; i++) total += (x * i) % 7;
    return total;
  };
  for (let i = 0; i < 20_000; i++) sum += hot(i);
  for (let i = 0; i < 40; i++) kept[i % 8] = Array.from({ length: 20_000 }, (_, id) => ({ id }));
  return sum + kept.length;
}

const scenarios: Record<string, (index: number) => Promise<void> | void> = {
  work: async (index) => {
    const privateAtFork = privateMemory();
    const report: Report = {
      pid: process.pid,
      kernelPid: getPid(),
      random: randomBytes(8).toString('hex'),
      privateAtFork,
      uncopied: uncopied(),
      work: await work(index),
      privateAfterWork: privateMemory(),
    };
    writeFileSync(join(folder, `${index}.json`), JSON.stringify(report));
    exitNow(index);
  },
  burn: () => exitNow(burn() > 0 ? 0 : 1),
  exit: () => process.exit(5),
  throw: () => {
    throw new Error('thrown in the child');
  },
  reject: async () => {
    await delay(1);
    throw new Error('rejected in the child');
  },
  drain: () => {
    process.exitCode = 6;
  },
  catch: () => {
    process.on('uncaughtException', () => exitNow(7));
    throw new Error('caught in the child');
  },
  grandchild: async () => {
    const pid = fork();
    if (pid === 0) exitNow(process.pid === getPid() ? 8 : 9);
    exitNow((await ended(pid)).code);
  },
};

async function ended(pid: number): Promise<ExitStatus> {
  const pidfd = pidfdOpen(pid);
  await new Promise<void>((resolve) => {
    const poll = new Poll(pidfd, 'readable', () => {
      poll.close();
      resolve();
    });
  });
  closeSync(pidfd);
  const status = waitPid(pid);
  if (status === undefined) throw new Error(`pidfd of ${pid} is readable but the process has not ended`);
  return status;
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

const [name = 'work', count = '1'] = process.argv.slice(2);
const scenario = scenarios[name];
if (scenario === undefined) throw new Error(`no scenario ${name}`);
// Runs the children's code once, as a template does: they then share what it has compiled. It also starts the thread pool.
await work(255);

const forkMilliseconds: number[] = [];
const pids: number[] = [];
let isChild = false;
const limit = setTimeout(() => {
  for (const pid of pids) process.kill(pid, 'SIGKILL');
  throw new Error(`children hang, some of ${pids.join(' ')}`);
}, 30_000);
for (let index = 0; index < Number(count) && !isChild; index++) {
  await turn();
  const start = performance.now();
  const pid = fork();
  if (pid === 0) {
    isChild = true;
    clearTimeout(limit);
    await scenario(index);
  } else {
    forkMilliseconds.push(performance.now() - start);
    pids.push(pid);
  }
}
if (!isChild) {
  const statuses = await Promise.all(pids.map(ended));
  clearTimeout(limit);
  const files = readdirSync(folder).filter((file) => file.endsWith('.json'));
  const reports = files.map((file) => JSON.parse(readFileSync(join(folder, file), 'utf8')) as Report);
  rmSync(folder, { recursive: true });
  const outcome: Outcome = { forkMilliseconds, statuses, reports };
  process.stdout.write(JSON.stringify(outcome));
}
