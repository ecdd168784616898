/** A terminal taken over for a while: drawn without flicker, and given back as it was. */
import type { WriteStream } from 'node:tty';
import type { ScreenSize } from './top-table.ts';

/** Control sequences of ECMA-48 and xterm (ctlseqs). */
const ALTERNATE = '\x1b[?1049h';
const ORIGINAL = '\x1b[?1049l';
const HIDE_CURSOR = '\x1b[?25l';
const SHOW_CURSOR = '\x1b[?25h';
const HOME = '\x1b[H';
const CLEAR_LINE_END = '\x1b[K';
const CLEAR_BELOW = '\x1b[J';
/** Terminals that know it show what comes between the two at once; the others ignore it. */
const BEGIN_UPDATE = '\x1b[?2026h';
const END_UPDATE = '\x1b[?2026l';
/** A size that nobody knows, as of a serial line. */
const USUAL: ScreenSize = { columns: 80, rows: 24 };

export class Screen implements Disposable {
  readonly #output: WriteStream;
  #drawn = '';

  constructor(output: WriteStream) {
    this.#output = output;
    output.write(`${ALTERNATE}${HIDE_CURSOR}`);
  }

  get size(): ScreenSize {
    const { columns, rows } = this.#output;
    return { columns: columns || USUAL.columns, rows: rows || USUAL.rows };
  }

  /** Shows these lines and nothing else: each over what was there, in one write. Returns false while the terminal is behind. */
  draw(lines: readonly string[]): boolean {
    const frame = frameOf(lines);
    if (frame === this.#drawn) return true;
    this.#drawn = frame;
    return this.#output.write(frame);
  }

  /** What is shown is not what was drawn any more. */
  forget(): void {
    this.#drawn = '';
  }

  [Symbol.dispose](): void {
    this.#output.write(`${SHOW_CURSOR}${ORIGINAL}`);
  }
}

/** The last line ends without a line break, which would scroll a full screen. */
export function frameOf(lines: readonly string[]): string {
  const text = lines.map((line) => `${line}${CLEAR_LINE_END}`).join('\r\n');
  return `${BEGIN_UPDATE}${HOME}${text}${CLEAR_BELOW}${END_UPDATE}`;
}
