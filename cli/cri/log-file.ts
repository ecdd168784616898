/** The log of a container as kubelet rotates it: the file is moved away, and its writer begins a new one under the name. */
import { type FileHandle, open } from 'node:fs/promises';
import { setTimeout as after } from 'node:timers/promises';
import { Failure } from '../failure.ts';
import { Rotation } from './log-rotation.ts';

const CHUNK = 64 << 10;
const NEWLINE = 0x0a;
/** Milliseconds between two looks at a file that grows. */
const PAUSE_MS = 100;

export interface FollowOptions {
  readonly signal: AbortSignal;
  /** Whether nothing is written any more. Asked when all that there is has been read. */
  isOver(): Promise<boolean>;
}

/**
 * The lines of the log, without their ends; all that there are, or with what comes until it is over. A character is a byte (latin1):
 * what containers write need not be text.
 *
 * @param start where to begin, in bytes
 * @throws Failure for a log that is not there
 */
export async function* logLines(
  path: string,
  start: number,
  follow?: FollowOptions,
): AsyncGenerator<string, void, undefined> {
  let file = await opened(path);
  let rest = '';
  let position = start;
  let isLast = follow === undefined;
  const buffer = Buffer.alloc(CHUNK);
  try {
    const rotation = follow === undefined ? undefined : await Rotation.from(path, file);
    for (;;) {
      // Asked before it is read: to one that is replaced by then nothing more is written.
      const isReplaced = await rotation?.isReplaced();
      const { bytesRead } = await file.read(buffer, 0, CHUNK, position);
      position += bytesRead;
      const lines = (rest + buffer.toString('latin1', 0, bytesRead)).split('\n');
      rest = lines.pop()!;
      yield* lines;
      if (bytesRead > 0) continue;
      const next = isReplaced === true ? await rotation!.next() : undefined;
      if (next !== undefined) {
        await file.close();
        file = next;
        [rest, position] = ['', 0];
      } else if (isLast) {
        return;
      } else {
        // What was written before the end is read once more after it.
        isLast = await follow!.isOver();
        if (!isLast) await after(PAUSE_MS, undefined, { signal: follow!.signal });
      }
    }
  } finally {
    await file.close();
  }
}

/** Where the last lines of the log begin, in bytes. @throws Failure for a log that is not there */
export async function startOfLast(path: string, lines: number): Promise<number> {
  await using file = await opened(path);
  const { size } = await file.stat();
  if (lines === 0) return size;
  const buffer = Buffer.alloc(CHUNK);
  let missing = lines;
  for (let end = size; end > 0;) {
    const from = Math.max(0, end - CHUNK);
    const { bytesRead } = await file.read(buffer, 0, end - from, from);
    for (let at = bytesRead - 1; at >= 0; at -= 1) {
      // The end of the last line is not one before it.
      if (buffer[at] !== NEWLINE || from + at === size - 1) continue;
      missing -= 1;
      if (missing <= 0) return from + at + 1;
    }
    end = from;
  }
  return 0;
}

async function opened(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'r');
  } catch (error) {
    throw new Failure(`the log cannot be read: ${(error as Error).message}`);
  }
}
