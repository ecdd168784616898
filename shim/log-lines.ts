import type { OutputStream } from './journal.ts';

const NEWLINE = 0x0a;
const END_OF_LINE = Buffer.from('\n');
/** Without a limit, a line is still cut for it to fit into memory. */
const LARGEST = 1 << 20;

/** Bytes of a log, and how many lines they are. */
export interface LogRecords {
  readonly pieces: readonly Buffer[];
  readonly lines: number;
}

/**
 * Cuts one output of a container into the lines of a log as the CRI has it: `TIME STREAM TAG CONTENT`. The tag is `F` for what was
 * a whole line or the end of one, `P` for a part that is gone on with by the next line of the same stream: lines that are longer
 * than the limit, and a last one that does not end (kubernetes, design-proposals-archive/node/kubelet-cri-logging.md).
 */
export class LogLines {
  readonly #stream: OutputStream;
  readonly #limit: number;
  #rest: Buffer[] = [];
  #length = 0;

  /** @param limit bytes of content in a line; 0 or less for none */
  constructor(stream: OutputStream, limit: number) {
    this.#stream = stream;
    this.#limit = limit > 0 ? Math.min(limit, LARGEST) : LARGEST;
  }

  /**
   * What can be written, now that these bytes have come.
   *
   * @param bytes the caller's again once the result has been written
   * @param time as it is to be written
   */
  take(bytes: Buffer, time: string): LogRecords {
    const [full, partial] = [this.#head(time, 'F'), this.#head(time, 'P')];
    const pieces: Buffer[] = [];
    let lines = 0;
    const emit = (head: Buffer, content: Buffer): void => {
      pieces.push(head, ...this.#rest, content, END_OF_LINE);
      this.#rest = [];
      this.#length = 0;
      lines += 1;
    };
    for (let start = 0; start < bytes.length;) {
      const newline = bytes.indexOf(NEWLINE, start);
      const end = newline === -1 ? bytes.length : newline;
      for (let room = this.#limit - this.#length; end - start > room; room = this.#limit) {
        emit(partial, bytes.subarray(start, start + room));
        start += room;
      }
      if (newline !== -1) {
        emit(full, bytes.subarray(start, end));
      } else {
        this.#rest.push(Buffer.from(bytes.subarray(start)));
        this.#length += end - start;
      }
      start = end + 1;
    }
    return { pieces, lines };
  }

  /** The last line, when it does not end. */
  end(time: string): LogRecords {
    if (this.#length === 0) return { pieces: [], lines: 0 };
    const pieces = [this.#head(time, 'P'), ...this.#rest, END_OF_LINE];
    this.#rest = [];
    this.#length = 0;
    return { pieces, lines: 1 };
  }

  #head(time: string, tag: 'F' | 'P'): Buffer {
    return Buffer.from(`${time} ${this.#stream} ${tag} `, 'latin1');
  }
}
