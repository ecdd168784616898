import { Poll } from '../native/native.ts';
import { writeSync } from 'node:fs';
import { failedPrecondition, invalidArgument } from '../ttrpc/errors.ts';
import { Audience, type Heard } from './audience.ts';
import type { Descriptor } from './descriptor.ts';
import type { Inlet } from './fifo.ts';
import type { Log } from './log.ts';
import { LogFile } from './log-file.ts';
import { LogLines } from './log-lines.ts';
import { pathOf } from './logger.ts';
import { now, toRfc3339 } from './timestamp.ts';

export type OutputStream = 'stdout' | 'stderr';

/** What the CRI has for a line's content at most unless it is configured otherwise. */
const DEFAULT_LINE = 16 * 1024;

/** Where the input of a container comes from whoever is attached: `attach:///`, or `attach:///?once=true` for the first of them only. */
export interface AttachedInput {
  readonly inlet: Inlet;
  readonly once: boolean;
}

/**
 * What becomes of the output of a container of the CRI: it is written to a log, and copied to those who are attached, who also write
 * its input. Asked for by a standard output of `cri:///PATH?line=BYTES`; without a path there is no log, but attaching all the same.
 *
 * It is the shim that does this, so that a daemon may come and go: no line is lost by it and none is doubled.
 */
export class Journal {
  readonly #file: LogFile | undefined;
  readonly #lines: { readonly [Stream in OutputStream]: LogLines };
  readonly #audience = new Audience();
  readonly #open: Set<OutputStream>;
  #input: AttachedInput | undefined;

  /**
   * @param streams those that will have an end
   * @throws RpcError InvalidArgument for a URI that cannot be understood, FailedPrecondition for a log that cannot be opened
   */
  constructor(uri: URL, streams: readonly OutputStream[], log: Log) {
    const limit = Number(uri.searchParams.get('line') ?? DEFAULT_LINE);
    if (!Number.isInteger(limit)) throw invalidArgument(`${uri.href}: the length of lines is no number`);
    this.#file = uri.pathname === '/' || uri.pathname === '' ? undefined : new LogFile(pathOf(uri), log);
    this.#lines = { stdout: new LogLines('stdout', limit), stderr: new LogLines('stderr', limit) };
    this.#open = new Set(streams);
  }

  set input(input: AttachedInput | undefined) {
    this.#input = input;
  }

  /** @param bytes the caller's again afterwards */
  write(stream: OutputStream, bytes: Buffer): void {
    this.#file?.append(this.#lines[stream].take(bytes, toRfc3339(now())));
    this.#audience.tell(stream, bytes);
  }

  /** Nothing more will come of one of the streams. */
  end(stream: OutputStream): void {
    if (!this.#open.delete(stream)) return;
    this.#file?.append(this.#lines[stream].end(toRfc3339(now())));
    if (this.#open.size > 0) return;
    this.#file?.close();
    this.#audience.end();
  }

  /** @throws RpcError FailedPrecondition for a log that cannot be opened, or a container without one or whose output has ended */
  reopen(): void {
    if (this.#file === undefined) throw failedPrecondition('the container has no log');
    if (this.#open.size === 0) throw failedPrecondition('the output of the container has ended');
    this.#file.reopen();
  }

  /** The output from now on. */
  listen(signal: AbortSignal): AsyncIterable<Heard> {
    return this.#audience.listen(signal);
  }

  /** @throws RpcError FailedPrecondition when the container has no input that could be written here */
  demandInput(): Descriptor {
    const pipe = this.#input?.inlet.keeper;
    if (pipe === undefined) throw failedPrecondition('the container was made without standard input');
    return pipe;
  }

  /**
   * Hands bytes to the container's input, as fast as it takes them. Those that it will not take any more are dropped.
   *
   * @throws RpcError as `demandInput`
   */
  async writeInput(bytes: Uint8Array, signal: AbortSignal): Promise<void> {
    const pipe = this.demandInput();
    for (let written = 0; written < bytes.length && pipe.isOpen && !signal.aborted;) {
      try {
        written += writeSync(pipe.fd, bytes, written);
      } catch (error) {
        // EPIPE: the container has closed its input.
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') return;
        await writable(pipe.fd, signal);
      }
    }
  }

  /** Somebody who was attached has no more input: the end of it, when there is to be one only. */
  endInput(): void {
    if (this.#input?.once === true) this.#input.inlet.keeper?.close();
  }
}

async function writable(fd: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  using _ = new Poll(fd, 'writable', () => resolve());
  signal.addEventListener('abort', () => resolve(), { once: true });
  await promise;
}
