/** Sizes of terminals as clients send them: JSON objects one after another, `{"Width":80,"Height":24}`. */
import { Transform, type TransformCallback } from 'node:stream';

export interface TerminalSize {
  readonly width: number;
  readonly height: number;
}

/** No size is that long; what is, is none. */
const MAX_PENDING = 1024;
const MAX_CELLS = 0xffff;

/** Text in, sizes out. What is no size is an error: nothing that follows could be told apart. */
export class TerminalSizes extends Transform {
  #pending = '';

  constructor() {
    super({ readableObjectMode: true });
  }

  override _transform(chunk: Buffer, _encoding: string, done: TransformCallback): void {
    this.#pending += chunk.toString('latin1');
    try {
      for (let end = this.#pending.indexOf('}'); end >= 0; end = this.#pending.indexOf('}')) {
        this.push(parse(this.#pending.slice(0, end + 1)));
        this.#pending = this.#pending.slice(end + 1);
      }
      if (this.#pending.length > MAX_PENDING) throw new Error('a terminal size that does not end');
      done();
    } catch (error) {
      done(error as Error);
    }
  }
}

function parse(text: string): TerminalSize {
  const { Width: width, Height: height } = JSON.parse(text) as { Width?: unknown; Height?: unknown };
  if (!isCells(width) || !isCells(height)) throw new Error(`no terminal size: ${text.slice(0, 80)}`);
  return { width, height };
}

function isCells(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) <= MAX_CELLS;
}
