/**
 * Shows in plain words what Moor is for: a container that outlives its daemon. Everything lives in one temporary
 * directory and is removed at the end, also after a failure.
 */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const repository = resolve(import.meta.dirname, '..');
const home = mkdtempSync('/tmp/moor-quickstart-');
const address = join(home, 'moor.sock');
const log = join(home, 'moord.log');
let daemon: ChildProcess | undefined;

const say = (text: string) => console.log(`\n\x1b[1m${text}\x1b[0m`);

function moor(...args: string[]): string {
  console.log(`  $ moor ${args.join(' ')}`);
  const out = execFileSync(join(repository, 'bin/moor'), ['--address', address, ...args], {
    encoding: 'utf8',
  });
  if (out.trim() !== '') console.log(out.trimEnd().replaceAll(/^/gm, '    '));
  return out;
}

async function startDaemon(): Promise<ChildProcess> {
  const output = openSync(log, 'a');
  const child = spawn(
    join(repository, 'bin/moord'),
    ['--address', address, '--root', join(home, 'root'), '--state', join(home, 'state')],
    { stdio: ['ignore', output, output] },
  );
  for (let tries = 0; tries < 200; tries += 1) {
    if (child.exitCode !== null) throw new Error(`moord ended with ${child.exitCode}`);
    try {
      execFileSync(join(repository, 'bin/moor'), ['--address', address, 'version'], { stdio: 'ignore' });
      return child;
    } catch {
      await sleep(50);
    }
  }
  throw new Error('moord did not answer within ten seconds');
}

async function killDaemon(signal: NodeJS.Signals): Promise<void> {
  const child = daemon;
  daemon = undefined;
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((done) => child.once('exit', done));
  child.kill(signal);
  await gone;
}

/** A root filesystem with nothing in it but Debian's static busybox. */
function makeRootfs(): string {
  const rootfs = join(home, 'rootfs');
  for (const directory of ['bin', 'dev', 'etc', 'proc', 'root', 'sys', 'tmp']) {
    mkdirSync(join(rootfs, directory), { recursive: true });
  }
  cpSync('/bin/busybox', join(rootfs, 'bin/busybox'));
  for (const applet of ['sh', 'sleep', 'echo', 'cat', 'date', 'ps']) {
    symlinkSync('busybox', join(rootfs, 'bin', applet));
  }
  return rootfs;
}

const statusOf = (table: string) => /^keel\s.*$/m.exec(table)?.[0];

try {
  if (process.getuid?.() !== 0) throw new Error('please run this as root: containers need it');

  say('1. Start the daemon, on an empty directory, with its built-in defaults.');
  daemon = await startDaemon();
  moor('version');

  say('2. Run a container that prints a line every second.');
  const script = 'i=0; while true; do i=$((i+1)); echo tick $i > /tmp/ticks; sleep 1; done';
  moor('run', '--detach', '--rootfs', makeRootfs(), 'keel', 'sh', '-c', script);
  const before = statusOf(moor('tasks', 'ls'));
  if (before === undefined || !before.includes('RUNNING')) throw new Error('the container is not running');

  say('3. Kill the daemon with SIGKILL, as a crash would. The container runs on: its shim holds it.');
  await killDaemon('SIGKILL');
  const pid = Number(/\d+/.exec(before.slice('keel'.length))?.[0]);
  const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')[0];
  console.log(`    process ${pid} (${command}) is still alive, and nobody listens on ${address}`);

  say('4. Start the daemon again. It finds the container as it was, with the same process id.');
  const started = performance.now();
  daemon = await startDaemon();
  console.log(`    back and answering after ${Math.round(performance.now() - started)} ms`);
  const after = statusOf(moor('tasks', 'ls'));
  if (after !== before) throw new Error(`the container changed over the restart: ${before} → ${after}`);

  say('5. Execute a command in it.');
  const ticks = moor('tasks', 'exec', '--exec-id', 'look', 'keel', 'cat', '/tmp/ticks');
  if (!ticks.startsWith('tick ')) throw new Error('the command did not see the container');

  say('6. Clean up.');
  moor('tasks', 'kill', '--signal', 'SIGKILL', 'keel');
  moor('tasks', 'rm', '--force', 'keel');
  moor('containers', 'rm', 'keel');
  await killDaemon('SIGTERM');

  say('Done. What was moored stayed moored. Next: README.md, or `bin/moor --help`.');
} catch (error) {
  console.error(`\nquickstart failed: ${error instanceof Error ? error.message : String(error)}`);
  console.error(`The end of the daemon's log:\n${safeTail(log)}`);
  process.exitCode = 1;
} finally {
  try {
    if (daemon !== undefined) moor('tasks', 'rm', '--force', 'keel');
  } catch {
    // The container may be gone already; what is left is seen by the next start of a daemon on this state.
  }
  await killDaemon('SIGTERM');
  rmSync(home, { recursive: true, force: true });
}

function safeTail(path: string): string {
  try {
    return readFileSync(path, 'utf8').split('\n').slice(-20).join('\n');
  } catch {
    return '(no log)';
  }
}
