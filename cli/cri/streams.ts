/** A program in a container of a pod, or its first process, as if it ran here. */
import { Transform, type TransformCallback } from 'node:stream';
import type { Command } from 'commander';
import type { RemoteCommand, RemoteOptions } from '../../client/client.ts';
import { launching } from '../failure.ts';
import { type Session, withClient } from '../session.ts';
import { enterRawMode, followSize } from '../terminal.ts';
import { count } from './selection.ts';

interface StreamFlags {
  readonly interactive?: boolean;
  readonly tty?: boolean;
}

interface ExecFlags extends StreamFlags {
  readonly sync?: boolean;
  readonly timeout?: number;
}

/** Ctrl-P and Ctrl-Q, as Docker has it. */
const DETACH = Buffer.from([0x10, 0x11]);

export function addStreams(cri: Command): void {
  cri
    .command('exec')
    .description('run a program in a container; Ctrl-P Ctrl-Q leaves a terminal')
    .usage('[options] <container> <command> [arg...]')
    .argument('<container>')
    .argument('<command>')
    .argument('[arg...]')
    .passThroughOptions()
    .option('-i, --interactive', 'give it this command’s input')
    .option('-t, --tty', 'give it a terminal')
    .option('-s, --sync', 'wait for its end, and print what it has written then')
    .option('--timeout <seconds>', 'with --sync: what it gets before it is killed', count)
    .action((id: string, program: string, args: string[], flags: ExecFlags, command: Command) =>
      launching(() =>
        withClient(command, (session) =>
          flags.sync === true
            ? execSync(session, id, [program, ...args], flags)
            : attended(session, flags, (options) =>
                session.client.kubernetes.exec(id, [program, ...args], options),
              ),
        ),
      ),
    );
  cri
    .command('attach')
    .description('connect to the first process of a container; Ctrl-P Ctrl-Q leaves a terminal')
    .argument('<container>')
    .option('-i, --interactive', 'give it this command’s input')
    .option('-t, --tty', 'it has a terminal')
    .action((id: string, flags: StreamFlags, command: Command) =>
      launching(() =>
        withClient(command, (session) =>
          attended(session, flags, (options) => session.client.kubernetes.attach(id, options)),
        ),
      ),
    );
}

async function execSync(
  { client, call, globals }: Session,
  containerId: string,
  cmd: string[],
  { timeout = Math.ceil(globals.timeout / 1000) }: ExecFlags,
): Promise<void> {
  const request = { containerId, cmd, timeout: BigInt(timeout) };
  const answer = await client.kubernetes.runtime.execSync(request, call);
  process.stdout.write(answer.stdout);
  process.stderr.write(answer.stderr);
  process.exitCode = answer.exitCode;
}

/** Until its end, which is this command's, or until the user leaves it. */
async function attended(
  { call }: Session,
  { interactive = false, tty = false }: StreamFlags,
  connect: (options: RemoteOptions) => Promise<RemoteCommand>,
): Promise<void> {
  const undo: (() => void)[] = [];
  const left = Promise.withResolvers<number>();
  try {
    if (tty) undo.push(enterRawMode());
    const { stdin } = process;
    const input = tty ? stdin.pipe(new DetachKeys(() => left.resolve(0))) : stdin;
    const remote = await connect({
      ...call,
      tty,
      stdin: interactive ? input : undefined,
      stdout: process.stdout,
      stderr: process.stderr,
    });
    undo.push(() => remote.leave());
    if (tty) {
      // It may have ended, which is told below.
      const follow = followSize((size) => remote.resize(size).catch(() => {}), undo);
      await follow();
    }
    process.exitCode = await Promise.race([remote.exited, left.promise]);
  } finally {
    for (const each of undo.reverse()) each();
    process.stdin.destroy();
  }
}

/** What is typed, until it is the keys by which a user leaves. */
class DetachKeys extends Transform {
  readonly #onDetach: () => void;
  #matched = 0;

  constructor(onDetach: () => void) {
    super();
    this.#onDetach = onDetach;
  }

  override _transform(chunk: Buffer, _encoding: string, done: TransformCallback): void {
    const passed: number[] = [];
    for (const key of chunk) {
      if (key === DETACH[this.#matched]) {
        this.#matched += 1;
        if (this.#matched === DETACH.length) {
          this.#onDetach();
          return done();
        }
        continue;
      }
      // Those that were held back were meant after all; the key itself may begin anew.
      passed.push(...DETACH.subarray(0, this.#matched));
      this.#matched = key === DETACH[0] ? 1 : 0;
      if (this.#matched === 0) passed.push(key);
    }
    done(null, Buffer.from(passed));
  }
}
