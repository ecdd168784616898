/** The process that has the shim's code loaded and forks the shims. */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import type { Logger } from 'pino';
import { socketPair } from '../../native/native.ts';
import { messageOf, unavailable } from '../../ttrpc/errors.ts';

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
  /** A directory that the template may make, for its warm-up. */
  readonly scratch: string;
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

interface Running {
  readonly process: ChildProcess;
  readonly socket: Socket;
  readonly waiting: Map<number, PromiseWithResolvers<number>>;
}

/** Starts the template with the daemon, and again when it has died. Its death harms no shim. */
export class ShimTemplate {
  readonly #options: TemplateOptions;
  #running: Running | undefined;
  #sequence = 0;
  #diedAt = -Infinity;
  #closed = false;

  constructor(options: TemplateOptions) {
    this.#options = options;
  }

  /**
   * Forks one shim.
   * @returns its pid
   * @throws RpcError Unavailable when there is no template, or it has not answered: whether a shim runs is then unknown
   */
  async fork(request: ForkRequest): Promise<number> {
    const { socket, waiting } = this.start();
    const sequence = (this.#sequence += 1);
    const answer = Promise.withResolvers<number>();
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

  /** Starts the template if none runs. */
  start(): Running {
    if (this.#running !== undefined) return this.#running;
    if (this.#closed || performance.now() - this.#diedAt < PAUSE_MS) {
      throw unavailable('the shim template has just died');
    }
    const [program = '', ...args] = this.#options.command;
    const [ours, theirs] = socketPair();
    let child: ChildProcess;
    try {
      child = spawn(program, [...FORKABLE, ...args, '-bundle', this.#options.scratch, 'template'], {
        env: { ...this.#options.env, UV_USE_IO_URING: '0' },
        detached: true,
        stdio: ['ignore', 'inherit', 'inherit', theirs],
      });
    } finally {
      closeSync(theirs);
    }
    const socket = new Socket({ fd: ours });
    const running: Running = { process: child, socket, waiting: new Map() };
    this.#running = running;
    child.unref();
    child.once('error', (error) => this.#lost(running, messageOf(error)));
    child.once('exit', (code, signal) => this.#lost(running, `it ended with ${signal ?? code}`));
    socket.once('error', (error) => this.#lost(running, messageOf(error)));
    socket.once('close', () => this.#lost(running, 'it has closed its connection'));
    createInterface({ input: socket }).on('line', (line) => settle(running, line));
    return running;
  }

  /** Lets the template end. */
  close(): void {
    this.#closed = true;
    this.#running?.socket.destroy();
  }

  #lost(running: Running, why: string): void {
    if (this.#running !== running) return;
    this.#running = undefined;
    this.#diedAt = performance.now();
    running.socket.destroy();
    for (const answer of running.waiting.values())
      answer.reject(unavailable(`the shim template has died: ${why}`));
    if (this.#closed) return;
    this.#options.log.warn(
      { why },
      'the shim template has died; shims live on, new ones are started afresh meanwhile',
    );
    setTimeout(() => this.#restart(), PAUSE_MS).unref();
  }

  #restart(): void {
    if (!this.#closed) this.start();
  }
}

function settle({ waiting }: Running, line: string): void {
  const { sequence, pid, error } = JSON.parse(line) as { sequence: number; pid?: number; error?: string };
  const answer = waiting.get(sequence);
  if (pid === undefined) answer?.reject(unavailable(`the shim template cannot fork: ${error}`));
  else answer?.resolve(pid);
}
