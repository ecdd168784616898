import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { closeSync, constants, openSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { messageOf } from '../ttrpc/errors.ts';
import { encodeResult, parseBootstrap } from './bootstrap.ts';
import { joinCgroup } from './cgroup/cgroup.ts';
import type { Flags } from './flags.ts';
import { parseOptions } from './options.ts';
import { listenPrivately } from './socket.ts';

/** A unix socket's path has room for so many bytes (unix(7)). */
const LONGEST_SOCKET_PATH = 107;
const FALLBACK_FOLDER = '/run/moor/s';

/**
 * Starts the shim of a task in the background and returns what the daemon is told on standard output: the shim binary contract's
 * `start`. The working directory is the bundle.
 */
export function start(flags: Flags, stdin: Uint8Array): Uint8Array {
  if (flags.id === '') throw new Error('start needs the id of a task');
  const bundle = flags.bundle || process.cwd();
  const params = parseBootstrap(stdin, flags);
  const { shimCgroup } = parseOptions(params.options);
  const path = flags.socket || socketPath(flags, params.socketDir);
  const address = `unix://${path}`;
  const socket = listenPrivately(path);
  const log = openLog(bundle);
  try {
    writeAddress(bundle, address);
    const child = spawn(process.execPath, serveArguments(flags, bundle, params.debug), {
      cwd: bundle,
      detached: true,
      stdio: ['ignore', log ?? 'ignore', log ?? 'ignore', socket],
      env: {
        ...process.env,
        ...(params.ttrpcAddress === '' ? {} : { TTRPC_ADDRESS: params.ttrpcAddress }),
        ...(params.grpcAddress === '' ? {} : { GRPC_ADDRESS: params.grpcAddress }),
      },
    });
    if (child.pid === undefined) throw new Error(`the shim cannot be started from ${process.execPath}`);
    child.unref();
    if (shimCgroup !== '') joinCgroup(shimCgroup, child.pid);
    easeOomScore(child.pid);
  } catch (error) {
    rmSync(path, { force: true });
    throw error;
  } finally {
    closeSync(socket);
    if (log !== undefined) closeSync(log);
  }
  return encodeResult(address, params.dialect, params.dialect === 'address' ? 2 : 3);
}

function serveArguments(flags: Flags, bundle: string, debug: boolean): string[] {
  return [
    ...process.execArgv,
    process.argv[1]!,
    'serve',
    '-namespace',
    flags.namespace,
    '-id',
    flags.id,
    '-address',
    flags.address,
    '-bundle',
    bundle,
    ...(flags.debug || debug ? ['-debug'] : []),
  ];
}

/** A name that no other shim has, in a folder whose path is short enough for a socket. */
function socketPath({ namespace, id, address }: Flags, wanted: string): string {
  const name = createHash('sha256')
    .update(`${namespace}/${id}/${randomBytes(16).toString('hex')}`)
    .digest('hex')
    .slice(0, 16);
  const beside = address.startsWith('/') ? join(dirname(address), 's') : FALLBACK_FOLDER;
  const folders = [...(wanted === '' ? [] : [wanted]), beside, FALLBACK_FOLDER];
  const folder = folders.find((each) => Buffer.byteLength(join(each, name)) <= LONGEST_SOCKET_PATH);
  return join(folder ?? FALLBACK_FOLDER, name);
}

/**
 * The bundle's log: a FIFO that containerd reads, or a file. Not waited for, neither here nor by the shim, whose lines are
 * dropped when nobody reads.
 */
function openLog(bundle: string): number | undefined {
  try {
    return openSync(join(bundle, 'log'), constants.O_WRONLY | constants.O_NONBLOCK | constants.O_APPEND);
  } catch {
    return undefined;
  }
}

/** Every containerd before 2.0 looks here for the address when it has been restarted. */
function writeAddress(bundle: string, address: string): void {
  const path = join(bundle, 'address');
  writeFileSync(`${path}.new`, address, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

/** Makes the kernel end the shim rather than the daemon when memory is short, as containerd's shims ask for. */
function easeOomScore(pid: number): void {
  try {
    const score = Number(readFileSync(`/proc/${process.ppid}/oom_score_adj`, 'latin1'));
    writeFileSync(`/proc/${pid}/oom_score_adj`, String(Math.min(score + 1, 1000)));
  } catch (error) {
    process.stderr.write(`the shim keeps its OOM score: ${messageOf(error)}\n`);
  }
}
