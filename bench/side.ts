/** One side of a comparison: a daemon, Debian's ctr bound to it, and the books of what both use. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Ctr } from '../test/harness/ctr.ts';
import { Daemon, type Peer } from '../test/harness/daemon.ts';
import { describe } from '../test/harness/program.ts';
import { eventually } from '../test/harness/wait.ts';
import { Account } from './account.ts';

export const idleCommand = ['/bin/sleep', '100000'];

export class Side implements AsyncDisposable {
  readonly label: string;
  readonly daemon: Daemon;
  readonly ctr: Ctr;
  /** Of the daemon, what it starts (shims too, containers not), and clients started by `counted`. */
  readonly account: Account;
  readonly #crowd: string[] = [];

  private constructor(label: string, daemon: Daemon, account: Account) {
    this.label = label;
    this.daemon = daemon;
    this.ctr = daemon.ctr();
    this.account = account;
    account.enlist(daemon.pid);
  }

  static async start(label: string, peer: Peer, name: string): Promise<Side> {
    const account = new Account(name);
    const side = new Side(label, await Daemon.start(peer), account);
    await side.#warmUp();
    return side;
  }

  /** Runs a container once through, so that no measure pays for a cold start. */
  async #warmUp(): Promise<void> {
    for (let round = 0; round < 2; round += 1)
      await this.timed(this.ctr.runArgs('warm', ['/bin/true'], ['--rm']));
    await eventually('the warm-up is over', async () => (await this.ctr.tasks()).size === 0);
  }

  /** Milliseconds of a ctr call that must succeed. */
  async timed(args: readonly string[]): Promise<number> {
    const outcome = await this.ctr.call(args, { timeout: 120_000 });
    if (outcome.code !== 0) throw new Error(`${this.label}: ${describe(outcome)}\n${this.daemon.tail()}`);
    return outcome.milliseconds;
  }

  /** A ctr call that must succeed, its processor time in the account and its output thrown away. */
  async counted(args: readonly string[]): Promise<void> {
    const enter = 'echo $$ > "$0"; exec "$@"';
    const ctr = ['ctr', '-a', this.daemon.address, '-n', this.ctr.namespace, ...args];
    const child = spawn('/bin/sh', ['-c', enter, this.account.door, ...ctr], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let stderr = '';
    child.stderr.on('data', (text: Buffer) => (stderr += text.toString()));
    const [code] = (await once(child, 'close')) as [number | null];
    if (code !== 0)
      throw new Error(`${this.label}: ctr ${args.join(' ')}: exit ${code}\n${stderr}${this.daemon.tail()}`);
  }

  /** kill -9 and start; milliseconds to the first answer. */
  async restart(): Promise<number> {
    const milliseconds = await this.daemon.restart();
    this.account.enlist(this.daemon.pid);
    return milliseconds;
  }

  /** Has so many idle containers run. Returns their names, the oldest first. */
  async crowd(count: number): Promise<readonly string[]> {
    while (this.#crowd.length > count) await this.ctr.remove(this.#crowd.pop()!);
    while (this.#crowd.length < count) {
      const id = `crowd-${this.#crowd.length}`;
      await this.ctr.runDetached(id, idleCommand);
      this.#crowd.push(id);
    }
    return this.#crowd;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.daemon.stop();
    await this.account[Symbol.asyncDispose]();
  }
}
