/**
 * Shows how far a transfer is: on a terminal with a bar for each part, redrawn in place; elsewhere with a line when a part
 * begins and one when it ends.
 */
import type { Progress } from '../client/client.ts';
import { Board, type Item, type State } from './progress-board.ts';
import { binarySize, elapsed } from './size.ts';

/** What is written to: a terminal when it has columns. */
export interface Screen {
  readonly isTTY?: boolean;
  readonly columns?: number;
  readonly rows?: number;
  write(text: string): unknown;
}

export interface ProgressOptions {
  /** What is under way, for the first line: an image's name. */
  readonly title: string;
  /** Only lines, also on a terminal. */
  readonly plain?: boolean;
}

/** Milliseconds between two drawings. */
const INTERVAL = 100;
const BAR = { least: 10, most: 40 };

/** Erases to the end of the line, and of the screen: ECMA-48, which all terminals of today understand. */
const ERASE_LINE = '\u001B[K';
const ERASE_BELOW = '\u001B[J';
const up = (lines: number): string => (lines > 0 ? `\u001B[${lines}A\r` : '\r');

/** A display that ends with the command, however that ends. */
export interface Display extends Disposable {
  update(progress: Progress): void;
  /** Shows the sum of it; not when the transfer has failed. */
  finish(): void;
}

/** @param screen undefined for no display at all */
export function showProgress(screen: Screen | undefined, options: ProgressOptions): Display {
  if (screen === undefined) return { update() {}, finish() {}, [Symbol.dispose]() {} };
  const isDumb = process.env['TERM'] === 'dumb';
  return screen.isTTY === true && !isDumb && options.plain !== true
    ? new Bars(screen, options)
    : new Lines(screen, options);
}

function summary(board: Board, began: number): string {
  const milliseconds = performance.now() - began;
  const { moved } = board;
  const speed = milliseconds > 0 ? moved / (milliseconds / 1000) : 0;
  return `total ${binarySize(moved)} in ${elapsed(milliseconds)} (${binarySize(speed)}/s)`;
}

/** Of what has no item: `http` is asked for by people who look for a mistake. */
function remark({ event, name }: Progress): string | undefined {
  return event === 'http' ? name : undefined;
}

class Lines implements Display {
  readonly #screen: Screen;
  readonly #board = new Board();
  readonly #began = performance.now();

  constructor(screen: Screen, { title }: ProgressOptions) {
    this.#screen = screen;
    if (title !== '') screen.write(`${title}\n`);
  }

  update(progress: Progress): void {
    const text = remark(progress);
    if (text !== undefined) this.#screen.write(`${text}\n`);
    const change = this.#board.update(progress);
    if (change === undefined) return;
    const { item, before } = change;
    // A part that waits has not begun, and one that is unpacked has been told of when it came.
    if (item.state === 'waiting' || item.state === 'unpacking') return;
    const size = item.total > 0 && before !== 'unpacking' ? ` (${binarySize(item.total)})` : '';
    this.#screen.write(`${item.title}: ${wordFor(item)}${size}\n`);
  }

  finish(): void {
    this.#screen.write(`${summary(this.#board, this.#began)}\n`);
  }

  [Symbol.dispose](): void {}
}

const WORDS: { readonly [state in State]: string } = {
  waiting: 'waiting',
  downloading: 'downloading',
  uploading: 'uploading',
  fetched: 'complete',
  exists: 'already here',
  unpacking: 'unpacking',
  done: 'unpacked',
};

function wordFor({ state }: Item): string {
  return WORDS[state];
}

class Bars implements Display {
  readonly #screen: Screen;
  readonly #title: string;
  readonly #board = new Board();
  readonly #began = performance.now();
  /** The widths of the lines that are on the screen. */
  #drawn: readonly number[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(screen: Screen, { title }: ProgressOptions) {
    this.#screen = screen;
    this.#title = title;
    this.#draw();
  }

  update(progress: Progress): void {
    const text = remark(progress);
    if (text !== undefined) this.#draw([text]);
    this.#board.update(progress);
    // At most one drawing in a while, and none when nothing happens.
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#draw();
    }, INTERVAL);
  }

  finish(): void {
    this.#draw([], summary(this.#board, this.#began));
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    if (this.#timer !== undefined) this.#draw();
    this.#timer = undefined;
  }

  /** Draws everything in one write, so that the terminal shows no half of it. */
  #draw(above: readonly string[] = [], last?: string): void {
    // A terminal whose size nobody has set says that it has none.
    const columns = this.#screen.columns || 80;
    const rows = this.#screen.rows || 24;
    const items = this.#board.items;
    const room = Math.max(rows - 3, 1);
    // When there are too many, those that are at work are shown.
    const shown = items.length <= room ? items : items.filter(isBusy).slice(0, room - 1);
    const width = Math.max(...shown.map(({ title }) => title.length), 0);
    const lines = [
      ...(this.#title === '' ? [] : [this.#title]),
      ...shown.map((item) => lineFor(item, width, columns)),
      ...(shown.length < items.length ? [`… ${items.length - shown.length} more`] : []),
      last ?? summary(this.#board, this.#began),
    ].map((line) => cut(line, columns));
    // A terminal that was made narrower has wrapped what was wider.
    const height = this.#drawn.reduce((sum, length) => sum + Math.max(Math.ceil(length / columns), 1), 0);
    const text = [...above.flatMap((line) => line.split('\n')), ...lines];
    this.#screen.write(`${up(height)}${text.map((line) => `${line}${ERASE_LINE}\n`).join('')}${ERASE_BELOW}`);
    this.#drawn = lines.map(({ length }) => length);
  }
}

function isBusy({ state }: Item): boolean {
  return state === 'downloading' || state === 'uploading' || state === 'unpacking';
}

/** The last column stays free: some terminals wrap when it is written. */
function cut(line: string, columns: number): string {
  return line.length < columns ? line : `${line.slice(0, Math.max(columns - 2, 0))}…`;
}

const WORD_WIDTH = Math.max(...Object.values(WORDS).map(({ length }) => length));
const SIZE_WIDTH = '1023.9 MiB/1023.9 MiB'.length;

function lineFor(item: Item, width: number, columns: number): string {
  const { title, state, progress, total } = item;
  const start = `${title.padEnd(width)}  ${wordFor(item).padEnd(WORD_WIDTH)}`;
  const isMoving = state === 'downloading' || state === 'uploading';
  const sizes =
    total === 0 ? '' : isMoving ? `${binarySize(progress)}/${binarySize(total)}` : binarySize(total);
  const room = columns - start.length - SIZE_WIDTH - 7;
  if (room < BAR.least) return `${start}  ${sizes}`;
  const length = Math.min(room, BAR.most);
  const share = total > 0 && isMoving ? Math.min(progress / total, 1) : state === 'waiting' ? 0 : 1;
  return `${start}  ${bar(share, length)}  ${sizes.padStart(SIZE_WIDTH)}`;
}

function bar(share: number, length: number): string {
  const filled = Math.floor(share * length);
  const head = filled < length && filled > 0 ? '>' : '';
  return `[${'='.repeat(Math.max(filled - head.length, 0))}${head}${' '.repeat(length - Math.max(filled, head.length))}]`;
}
