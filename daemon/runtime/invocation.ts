/** Running a shim's program for one of its short commands, `start` and `delete`. */
import { spawn } from 'node:child_process';
import type { Readable } from 'node:stream';
import { deadlineExceeded, internal, messageOf, notFound, resourceExhausted } from '../../ttrpc/errors.ts';
import { starved, started, stuck, unstartable } from '../shortage.ts';
import { endIfStuck } from './stuck-start.ts';

export interface Invocation {
  readonly command: readonly string[];
  readonly cwd: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly input?: Uint8Array;
  /** Milliseconds after which it is killed. */
  readonly timeout: number;
  /** It runs on Node, and is not waited for when that is stuck in its start. */
  readonly onNode?: boolean;
}

export interface Outcome {
  readonly stdout: Buffer;
  /** Warnings it printed while it succeeded. */
  readonly stderr: string;
}

/** An answer is an address or a short message; what is beyond is dropped. */
const MAX_OUTPUT_BYTES = 1 << 20;

/** How long output may come after the exit: a program may leave a child behind that holds the pipes. */
const LINGER_MS = 500;

/**
 * Runs a program to its end.
 * @throws RpcError NotFound when it cannot be started, ResourceExhausted for want of descriptors or processes, DeadlineExceeded when
 *         it took too long, Internal, with what it said on its error output, when it failed
 */
export async function invoke(invocation: Invocation): Promise<Outcome> {
  const [program = '', ...args] = invocation.command;
  const { cwd, env } = invocation;
  // A session of its own, so that a signal meant for the daemon's group (Ctrl-C in a terminal) does not reach it.
  const child = spawn(program, args, { cwd, env, detached: true, stdio: ['pipe', 'pipe', 'pipe'] });
  started(child, program);
  const stdout = collect(child.stdout);
  const stderr = collect(child.stderr);
  // It may end without having read its input.
  child.stdin.on('error', () => {});
  child.stdin.end(invocation.input);

  let late = false;
  const exited = Promise.withResolvers<{ code: number | null; signal: string | null }>();
  child.once('error', exited.reject);
  child.once('exit', (code, signal) => exited.resolve({ code, signal }));
  let isStuck = false;
  if (invocation.onNode === true) endIfStuck(child, () => (isStuck = true));
  const timer = setTimeout(() => {
    late = true;
    child.kill('SIGKILL');
  }, invocation.timeout);
  try {
    const { code, signal } = await exited.promise;
    const linger = setTimeout(() => {
      child.stdout.destroy();
      child.stderr.destroy();
    }, LINGER_MS);
    const [out, err] = await Promise.all([stdout, stderr]);
    clearTimeout(linger);
    const said = err.toString('utf8').trim();
    if (late) throw deadlineExceeded(`${program} did not finish within ${invocation.timeout} ms: ${said}`);
    if (code === 0) return { stdout: out, stderr: said };
    if (isStuck) throw stuck(program);
    const want = invocation.onNode === true ? starved(said, signal) : undefined;
    if (want !== undefined) throw resourceExhausted(`${program} failed: ${want}`);
    throw internal(
      `${program} failed (${code === null ? signal : `exit code ${code}`}): ${said || out.toString('utf8').trim()}`,
    );
  } catch (error) {
    if (child.pid !== undefined) throw error;
    throw unstartable(program, error) ?? notFound(`cannot run ${program}: ${messageOf(error)}`, error);
  } finally {
    clearTimeout(timer);
  }
}

function collect(stream: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  stream.on('data', (chunk: Buffer) => {
    if (length >= MAX_OUTPUT_BYTES) return;
    chunks.push(chunk);
    length += chunk.length;
  });
  stream.on('error', () => {});
  return new Promise((resolve) => {
    stream.once('close', () => resolve(Buffer.concat(chunks)));
  });
}
