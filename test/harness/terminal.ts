/** A pseudo-terminal with a program on it, as a person would use it. */
import type { IPty } from 'node-pty';
import { eventually, type Bound } from './wait.ts';

export class Terminal {
  readonly #pty: IPty;
  #shown = '';
  readonly #exited: Promise<number>;
  #gone = false;

  constructor(pty: IPty) {
    this.#pty = pty;
    pty.onData((text) => (this.#shown += text));
    this.#exited = new Promise((resolve) =>
      pty.onExit(({ exitCode, signal }) => {
        this.#gone = true;
        resolve(signal ? 128 + signal : exitCode);
      }),
    );
  }

  /** Everything shown so far, escape sequences included. */
  get shown(): string {
    return this.#shown;
  }

  type(text: string): void {
    this.#pty.write(text);
  }

  resize(cols: number, rows: number): void {
    this.#pty.resize(cols, rows);
  }

  /** Waits until the pattern is shown. */
  async sees(pattern: RegExp, bound?: Bound): Promise<RegExpMatchArray> {
    try {
      return await eventually(`the terminal shows ${pattern}`, () => this.#shown.match(pattern), bound);
    } catch (error) {
      throw new Error(`${(error as Error).message}\nshown: ${JSON.stringify(this.#shown)}`, { cause: error });
    }
  }

  /** The program's exit code, 128 + n for signals. */
  exited(): Promise<number> {
    return this.#exited;
  }

  kill(signal = 'SIGKILL'): void {
    if (!this.#gone) this.#pty.kill(signal);
  }
}
