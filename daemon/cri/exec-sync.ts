/** A program run in a container to its end. */
import type { Readable } from 'node:stream';
import { deadlineExceeded, invalidArgument, resourceExhausted } from '../../ttrpc/errors.ts';
import { untilAborted } from '../distribution/turns.ts';
import type { Cri } from './cri.ts';
import { exec } from './process.ts';

export interface Outcome {
  readonly stdout: Buffer;
  readonly stderr: Buffer;
  readonly exitCode: number;
}

/** What fits into an answer of gRPC, with room for the rest of it. Kubelet takes no more than 16 MiB. */
const MAX_OUTPUT = (16 << 20) - 4096;

/**
 * Runs it, and kills it when it takes too long.
 *
 * @param timeout milliseconds; 0 for none
 * @throws RpcError DeadlineExceeded; otherwise as `exec`
 */
export async function execSync(
  cri: Cri,
  containerId: string,
  command: readonly string[],
  timeout: number,
  signal: AbortSignal,
): Promise<Outcome> {
  if (timeout < 0) throw invalidArgument(`the timeout ${timeout} is negative: invalid argument`);
  const late = timeout === 0 ? undefined : AbortSignal.timeout(timeout);
  const patience = AbortSignal.any([signal, cri.closing, ...(late === undefined ? [] : [late])]);
  const wanted = { stdin: false, stdout: true, stderr: true, tty: false };
  try {
    await using process = await exec(cri, { containerId, command, ...wanted }, patience);
    const room = { bytes: MAX_OUTPUT };
    const output = Promise.all([collect(process.stdout, room), collect(process.stderr, room)]);
    const [exitCode, [stdout, stderr]] = await untilAborted(Promise.all([process.exited, output]), patience);
    return { stdout, stderr, exitCode: exitCode ?? 0 };
  } catch (error) {
    if (late?.aborted === true && !signal.aborted) {
      throw deadlineExceeded(
        `failed to exec in container: timeout ${timeout / 1000}s exceeded: context deadline exceeded`,
        error,
      );
    }
    throw error;
  }
}

/** All of it, as far as there is room: the rest is read and dropped, so that the program goes on. */
async function collect(stream: Readable | undefined, room: { bytes: number }): Promise<Buffer> {
  if (stream === undefined) throw resourceExhausted('a process has no output to collect');
  const chunks: Buffer[] = [];
  const { promise, resolve } = Promise.withResolvers<void>();
  stream
    .on('data', (chunk: Buffer) => {
      const kept = chunk.subarray(0, room.bytes);
      room.bytes -= kept.length;
      if (kept.length > 0) chunks.push(kept);
    })
    .once('close', resolve);
  await promise;
  return Buffer.concat(chunks);
}
