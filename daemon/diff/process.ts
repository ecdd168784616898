import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import { createInterface, type Interface } from 'node:readline';
import { sendFd, socketPair } from '../../native/native.ts';
import { cancelled, type Code, internal, messageOf, RpcError } from '../../ttrpc/errors.ts';
import { started } from '../shortage.ts';
import { type Answer, type Archive, type Job, parseAnswer } from './job.ts';

/** What is kept of what the process says before it dies. */
const LAST_WORDS = 2000;

/** One process that does jobs, one at a time. */
export class DifferProcess {
  readonly #child: ChildProcess;
  readonly #files: number;
  readonly #answers: AsyncIterator<string>;
  readonly #lines: Interface;
  readonly #ended: Promise<unknown>;
  #lastWords = '';
  #isAlive = true;

  /**
   * @param command the program and its arguments
   * @throws the kernel's error when no sockets can be made; RpcError ResourceExhausted
   */
  constructor([program, ...args]: readonly [string, ...string[]]) {
    const [ours, theirs] = socketPair();
    this.#files = ours;
    try {
      this.#child = spawn(program, args, {
        cwd: '/',
        // Nothing of the daemon's own: what a layer might exploit should find nothing here.
        env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
        stdio: ['pipe', 'pipe', 'pipe', theirs],
      });
      started(this.#child, program);
    } catch (error) {
      closeSync(ours);
      throw error;
    } finally {
      closeSync(theirs);
    }
    const { stdin, stdout, stderr } = this.#child;
    // What it writes to a process that has gone is lost; that it has gone is told by `exit`.
    stdin!.on('error', () => undefined);
    stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.#lastWords = (this.#lastWords + text).slice(-LAST_WORDS);
    });
    this.#lines = createInterface({ input: stdout! });
    this.#answers = this.#lines[Symbol.asyncIterator]();
    this.#ended = new Promise((resolve) => {
      // When it could not be started there is an error and no exit.
      this.#child.once('error', (error) => resolve((this.#lastWords ||= messageOf(error))));
      this.#child.once('close', resolve);
    }).finally(() => {
      this.#isAlive = false;
      this.#lines.close();
    });
  }

  get isAlive(): boolean {
    return this.#isAlive;
  }

  /**
   * Has a job done. Aborting kills the process, and with it everything it has mounted.
   *
   * @param file what the job reads or writes; stays the caller's
   * @throws RpcError Cancelled when aborted, Internal when the process dies, else what the job failed with
   */
  async run(job: Job, file: number, signal?: AbortSignal): Promise<Archive> {
    const kill = () => this.kill();
    if (signal?.aborted === true) throw cancelled(`${job.job} was cancelled`);
    signal?.addEventListener('abort', kill, { once: true });
    try {
      this.#send(file);
      this.#child.stdin!.write(`${JSON.stringify(job)}\n`);
      const line = await this.#answers.next();
      if (line.done === true) throw await this.#death(job, signal);
      const answer = this.#parse(line.value);
      if ('done' in answer) return answer.done;
      throw new RpcError(answer.failed.code as Code, answer.failed.message);
    } finally {
      signal?.removeEventListener('abort', kill);
    }
  }

  kill(): void {
    this.#isAlive = false;
    this.#child.kill('SIGKILL');
  }

  /** Lets it end; returns when it has. */
  async close(): Promise<void> {
    this.#child.stdin!.end();
    await this.#ended;
    closeSync(this.#files);
  }

  /** That there is nobody to receive it is told by the end of the answers. */
  #send(file: number): void {
    try {
      sendFd(this.#files, file);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EPIPE') throw error;
    }
  }

  #parse(line: string): Answer {
    try {
      return parseAnswer(line);
    } catch (error) {
      // Whatever it says next cannot be trusted either.
      this.kill();
      throw internal(`the differ process says what is ${messageOf(error)}`, error);
    }
  }

  async #death({ job }: Job, signal: AbortSignal | undefined): Promise<RpcError> {
    // It may have closed its output and live on.
    this.kill();
    await this.#ended;
    if (signal?.aborted === true) return cancelled(`${job} was cancelled`);
    const { exitCode, signalCode } = this.#child;
    const how = signalCode === null ? `ended with ${exitCode}` : `was ended by ${signalCode}`;
    const words = this.#lastWords.trim();
    return internal(`the differ process ${how} during ${job}${words === '' ? '' : `: ${words}`}`);
  }
}
