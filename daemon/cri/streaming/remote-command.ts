/** A command, or a container's first process, with a client at its streams: the same whatever protocol the client speaks. */
import type { Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { messageOf } from '../../../ttrpc/errors.ts';
import type { CommandSession, RemoteProcess, Targets } from './session.ts';
import { SUCCESS, type Status, exitStatus, failureStatus } from './status.ts';
import { type TerminalSize, TerminalSizes } from './terminal-size.ts';

/** A client's side. What the session does not want is undefined. */
export interface Channels {
  readonly stdin: Readable | undefined;
  readonly stdout: Writable | undefined;
  readonly stderr: Writable | undefined;
  /** Terminal sizes, as the client writes them. */
  readonly resize: Readable | undefined;
  /** Aborted when the client is gone. */
  readonly gone: AbortSignal;
  /** Says how it ended, as the last thing. */
  finish(status: Status): Promise<void>;
}

/** Runs until the process has ended and the client has all its output, or the client is gone. Never rejects. */
export async function runCommand(
  session: CommandSession,
  targets: Targets,
  channels: Channels,
): Promise<void> {
  let status: Status;
  try {
    await using process = await start(session, targets, channels.gone);
    const code = await attended(process, channels);
    status = code === undefined ? SUCCESS : exitStatus(code);
  } catch (error) {
    status = failureStatus(messageOf(error));
  }
  await channels.finish(status);
}

function start(session: CommandSession, targets: Targets, gone: AbortSignal): Promise<RemoteProcess> {
  return session.kind === 'exec' ? targets.exec(session, gone) : targets.attach(session, gone);
}

async function attended(process: RemoteProcess, channels: Channels): Promise<number | undefined> {
  const { gone } = channels;
  const leaving = Promise.withResolvers<undefined>();
  const leave = (): void => leaving.resolve(undefined);
  gone.addEventListener('abort', leave, { once: true });
  if (gone.aborted) leave();
  const output = Promise.all([flow(process.stdout, channels.stdout), flow(process.stderr, channels.stderr)]);
  const input = flow(channels.stdin, process.stdin);
  const resizing = resize(process, channels.resize);
  try {
    const code = await Promise.race([process.exited, leaving.promise]);
    await Promise.race([output, leaving.promise]);
    return code;
  } finally {
    gone.removeEventListener('abort', leave);
    // Nobody reads it any more; what is at the other end is let go of with the process.
    channels.stdin?.destroy();
    channels.resize?.destroy();
    await Promise.all([input, resizing]);
  }
}

/** Everything from one to the other, its end included. Who leaves early has the other let go as well, which is no failure. */
async function flow(from: Readable | undefined, to: Writable | undefined): Promise<void> {
  if (from === undefined) return void to?.end();
  if (to === undefined) return void from.resume();
  await pipeline(from, to).catch(() => undefined);
}

async function resize(process: RemoteProcess, from: Readable | undefined): Promise<void> {
  if (from === undefined) return;
  try {
    const sizes: AsyncIterable<TerminalSize> = from.pipe(new TerminalSizes());
    from.once('close', () => (sizes as unknown as TerminalSizes).destroy());
    // One after another: the last size is the one that stays.
    for await (const size of sizes) await process.resize(size);
  } catch {
    // A terminal keeps the size that it has when its client sends what is none, or its process has gone.
    from.resume();
  }
}
