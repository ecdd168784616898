import { createWriteStream, readFileSync } from 'node:fs';
import { isatty } from 'node:tty';
import type { Readable, Writable } from 'node:stream';
import { finished } from 'node:stream/promises';

/** open(2)'s O_NONBLOCK, as /proc shows it. */
const NONBLOCK = 0o4000;

/**
 * Where this command's stdout or stderr goes, without blocking signals meanwhile: Node's own streams write to a pipe with
 * the event loop standing still, so a reader that pauses would keep Ctrl-C from the container. A descriptor that somebody
 * has made non-blocking is left to Node, which knows how to wait for it.
 */
function writableOn(fd: 1 | 2): Writable {
  if (isatty(fd) || isNonblocking(fd)) return fd === 1 ? process.stdout : process.stderr;
  return createWriteStream('', { fd, autoClose: false });
}

function isNonblocking(fd: number): boolean {
  const flags = /^flags:\s*([0-7]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1] ?? '0';
  return (Number.parseInt(flags, 8) & NONBLOCK) !== 0;
}

/** Copies a stream to this command's stdout or stderr. Resolves at its end, when all has been written. */
export async function copyOut(from: Readable | undefined, fd: 1 | 2): Promise<void> {
  if (from === undefined) return;
  const to = writableOn(fd);
  const own = to !== process.stdout && to !== process.stderr;
  from.pipe(to, { end: own });
  const { promise: broken, reject } = Promise.withResolvers<never>();
  to.once('error', reject);
  try {
    await Promise.race([own ? finished(to) : finished(from, { writable: false }), broken]);
  } catch (error) {
    // A stream that was left (`destroy`) has ended for this command as well.
    if ((error as NodeJS.ErrnoException).code !== 'ERR_STREAM_PREMATURE_CLOSE') throw error;
  }
}
