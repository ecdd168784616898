/** The process that has the shim's code loaded and forks the shims. */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { closeSync, readdirSync, rmSync, statSync } from 'node:fs';
import { Socket } from 'node:net';
import { basename, dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Logger } from 'pino';
import { socketPair } from '../../native/native.ts';
import { messageOf, unavailable } from '../../ttrpc/errors.ts';
import { isForWant, started, stuck } from '../shortage.ts';
import { endIfStuck } from './stuck-start.ts';

/** What a shim is forked for; `shim/template.ts` reads it. */
export interface ForkRequest {
  readonly namespace: string;
  readonly id: string;
  readonly address: string;
  readonly bundle: string;
  /** Where the shim listens. */
  readonly socket: string;
  readonly debug: boolean;
}

export interface TemplateOptions {
  /** Program and first arguments that run the shim. */
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly log: Logger;
  /** What the directories begin with that templates make for their warm-up, each its own: a former one may still be at it. */
  readonly scratch: string;
  /** The files of the shim's code: when one is replaced, so is the template. */
  readonly code: readonly string[];
}

/**
 * What native/fork.ts asks for, and what keeps the shims from writing to memory that they share with the template:
 *
 * - Functions are compiled with their file, not in each shim that is first to call them.
 * - No feedback is collected, as a call would write to its function's. The code of a shim is never hot enough to be optimized by it.
 * - A container's start allocates less than the young generation holds, and the old one may grow: nothing is collected in a shim
 *   that does little. What it can grow to is bounded.
 */
const FORKABLE = [
  '--single-threaded',
  '--v8-pool-size=1',
  '--disable-sigusr1',
  '--no-lazy',
  '--invocation-count-for-feedback-allocation=1000000',
  '--min-semi-space-size=2',
  '--max-semi-space-size=2',
  '--initial-old-space-size=16',
  '--max-old-space-size=256',
];

/** Milliseconds between two templates when one has died. */
const PAUSE_MS = 1000;

/** Milliseconds for an answer: a fork takes one, a machine that swaps may need a thousand times as long. */
const ANSWER_MS = 5000;

/** After so many templates that have died before they were ready there is no further one for a while, or until the code changes. */
const MOST_ATTEMPTS = 5;
/** Milliseconds of that while: what they died of may be over then. */
const REST_MS = 60_000;

interface Running {
  readonly socket: Socket;
  readonly scratch: string;
  /** What the files of its code were. */
  readonly code: string;
  readonly waiting: Map<number, PromiseWithResolvers<number | undefined>>;
}

/** What comes from the template: about itself, or about the shim of a request. */
type Message =
  | { readonly ready: true }
  | { readonly unfit: string }
  | { readonly sequence: number; readonly pid: number }
  | { readonly sequence: number; readonly error: string };

/** Starts the template with the daemon, and again when it has died or its code has changed. Its death harms no shim. */
export class ShimTemplate {
  readonly #options: TemplateOptions;
  #running: Running | undefined;
  #sequence = 0;
  #diedAt = -Infinity;
  /** Templates in a row that have died before they were ready. */
  #attempts = 0;
  /** The code that cannot be forked, and until when that is taken for granted. */
  #unfit: { readonly code: string; readonly until: number } | undefined;
  #closed = false;

  constructor(options: TemplateOptions) {
    this.#options = options;
    this.#clearAll();
  }

  /**
   * Forks one shim.
   * @returns its pid, or undefined where shims cannot be forked; the reason has been logged once
   * @throws RpcError Unavailable when there is no template, or it has not answered: whether a shim runs is then unknown
   */
  async fork(request: ForkRequest): Promise<number | undefined> {
    const running = this.start();
    if (running === undefined) return undefined;
    const { socket, waiting } = running;
    const sequence = (this.#sequence += 1);
    const answer = Promise.withResolvers<number | undefined>();
    waiting.set(sequence, answer);
    const timer = setTimeout(
      () => answer.reject(unavailable('the shim template does not answer')),
      ANSWER_MS,
    );
    try {
      socket.write(`${JSON.stringify({ ...request, sequence })}\n`);
      return await answer.promise;
    } finally {
      clearTimeout(timer);
      waiting.delete(sequence);
    }
  }

  /**
   * Starts the template if none runs with the code that is there now.
   * @returns undefined where shims cannot be forked
   */
  start(): Running | undefined {
    const code = identityOf(this.#options.code);
    if (this.#running?.code === code) return this.#running;
    if (this.#unfit?.code === code && performance.now() < this.#unfit.until) return undefined;
    if (this.#running !== undefined) {
      this.#options.log.info('the code of the shim has changed: another template takes over');
      this.#retire(this.#running);
    }
    if (this.#closed || performance.now() - this.#diedAt < PAUSE_MS) {
      throw unavailable('the shim template has just died');
    }
    // A socket is in it, whose path is to be no longer than those of the shims.
    const scratch = `${this.#options.scratch}.${randomBytes(4).toString('hex')}`;
    const running: Running = { socket: this.#spawn(scratch), scratch, code, waiting: new Map() };
    this.#running = running;
    // For good: the failure of a write may come after that of a read.
    running.socket.on('error', (error) => this.#lost(running, messageOf(error), isForWant(error)));
    running.socket.once('close', () => this.#lost(running, 'it has closed its connection'));
    createInterface({ input: running.socket })
      .on('line', (line) => this.#take(running, JSON.parse(line) as Message))
      // It passes on the errors of the socket, which are seen to above.
      .on('error', () => {});
    return running;
  }

  /** Lets the template end. */
  close(): void {
    this.#closed = true;
    this.#running?.socket.destroy();
  }

  #spawn(scratch: string): Socket {
    const [program = '', ...args] = this.#options.command;
    const [ours, theirs] = socketPair();
    const socket = new Socket({ fd: ours });
    try {
      const child = spawn(program, [...FORKABLE, ...args, '-bundle', scratch, 'template'], {
        env: { ...this.#options.env, UV_USE_IO_URING: '0' },
        detached: true,
        stdio: ['ignore', 'inherit', 'inherit', theirs],
      });
      started(child, program);
      child.unref();
      endIfStuck(child, () => socket.destroy(stuck(program)));
      child.once('error', (error) => socket.destroy(error));
      child.once('exit', (code, signal) => {
        if (code !== 0) socket.destroy(new Error(`it ended with ${signal ?? code}`));
      });
      return socket;
    } catch (error) {
      socket.destroy();
      throw error;
    } finally {
      closeSync(theirs);
    }
  }

  #take(running: Running, message: Message): void {
    if ('ready' in message) this.#attempts = 0;
    else if ('unfit' in message) this.#giveUp(running, message.unfit);
    else {
      const answer = running.waiting.get(message.sequence);
      if ('pid' in message) answer?.resolve(message.pid);
      else answer?.reject(unavailable(`the shim template cannot fork: ${message.error}`));
    }
  }

  /** It answers what it has been asked, and ends. */
  #retire(running: Running): void {
    this.#running = undefined;
    this.#attempts = 0;
    running.socket.end();
  }

  #giveUp(running: Running, why: string, until = Infinity): void {
    this.#unfit = { code: running.code, until };
    if (this.#running === running) this.#running = undefined;
    this.#options.log.warn({ why }, 'shims cannot be forked, each is started afresh');
    for (const answer of running.waiting.values()) answer.resolve(undefined);
    running.socket.destroy();
  }

  /** @param innocent it could not even begin, which says nothing of its code */
  #lost(running: Running, why: string, innocent = false): void {
    running.socket.destroy();
    for (const answer of running.waiting.values())
      answer.reject(unavailable(`the shim template has died: ${why}`));
    if (this.#running !== running || this.#closed) return;
    this.#clear(running.scratch);
    if (!innocent) this.#attempts += 1;
    this.#diedAt = performance.now();
    if (this.#attempts >= MOST_ATTEMPTS) {
      this.#attempts = 0;
      return this.#giveUp(running, `the template has died: ${why}`, this.#diedAt + REST_MS);
    }
    this.#running = undefined;
    this.#options.log.warn(
      { why },
      'the shim template has died; shims live on, new ones are started afresh meanwhile',
    );
    setTimeout(() => this.#restart(), PAUSE_MS).unref();
  }

  /** What it was in the middle of when it died. */
  #clear(scratch: string): void {
    try {
      rmSync(scratch, { recursive: true, force: true });
    } catch (error) {
      this.#options.log.warn({ err: error }, 'the files of a dead template remain');
    }
  }

  /** What templates of former daemons have left. One that is still at it fails, and has nobody to fork for. */
  #clearAll(): void {
    const { scratch } = this.#options;
    const directory = dirname(scratch);
    for (const name of readdirSync(directory))
      if (name.startsWith(basename(scratch))) this.#clear(join(directory, name));
  }

  #restart(): void {
    if (this.#closed) return;
    try {
      this.start();
    } catch (error) {
      // The next shim that is wanted tries again.
      this.#options.log.warn({ err: error }, 'no shim template can be started');
    }
  }
}

/** What changes when one of the files is replaced or written to. */
function identityOf(files: readonly string[]): string {
  return files
    .map((file) => {
      const status = statSync(file, { throwIfNoEntry: false });
      return status === undefined ? '-' : `${status.dev} ${status.ino} ${status.size} ${status.mtimeMs}`;
    })
    .join('\n');
}
