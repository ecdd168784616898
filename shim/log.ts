import { writeSync } from 'node:fs';
import { messageOf } from '../ttrpc/errors.ts';

const LEVELS = { debug: 0, info: 1, warn: 2, error: 3 } as const;

export type Level = keyof typeof LEVELS;

/** What a line says beside its message. Errors are written as their text. */
export type Fields = Readonly<Record<string, unknown>>;

/**
 * The shim's log: one JSON object a line, on a descriptor. Nothing waits for it and nothing fails because of it: the
 * reader may be a FIFO that a daemon reads, full or left alone.
 */
export class Log {
  readonly #fd: number;
  readonly #least: number;
  readonly #fields: Fields;

  constructor(fd: number, least: Level, fields: Fields = {}) {
    this.#fd = fd;
    this.#least = LEVELS[least];
    this.#fields = fields;
  }

  debug(message: string, fields?: Fields): void {
    this.#write('debug', message, fields);
  }

  info(message: string, fields?: Fields): void {
    this.#write('info', message, fields);
  }

  warn(message: string, fields?: Fields): void {
    this.#write('warn', message, fields);
  }

  error(message: string, fields?: Fields): void {
    this.#write('error', message, fields);
  }

  #write(level: Level, msg: string, fields: Fields = {}): void {
    if (LEVELS[level] < this.#least) return;
    const line: Record<string, unknown> = { time: new Date().toISOString(), level, msg, ...this.#fields };
    for (const [key, value] of Object.entries(fields)) {
      line[key] = value instanceof Error ? messageOf(value) : value;
    }
    try {
      writeSync(this.#fd, `${JSON.stringify(line)}\n`);
    } catch {
      // A full FIFO (EAGAIN) or one that nobody reads any more (EPIPE): the container matters more than its log.
    }
  }
}
