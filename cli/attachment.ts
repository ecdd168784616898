/** A process in a container as if it ran here: its streams, its terminal, its signals, its exit status. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Exit, Process } from '../client/client.ts';
import { copyOut } from './output.ts';
import type { Session } from './session.ts';
import { enterRawMode, followSize } from './terminal.ts';

export interface AttachmentOptions {
  readonly terminal: boolean;
  /** Send this command's signals on to the process. Not with a terminal, whose keys are the process's signals. */
  readonly signals: boolean;
}

/** As docker's: what stops a command, and what a program may take as a message. SIGTSTP stays with the shell's job control. */
const FORWARDED: readonly NodeJS.Signals[] = [
  'SIGHUP',
  'SIGINT',
  'SIGQUIT',
  'SIGUSR1',
  'SIGUSR2',
  'SIGALRM',
  'SIGTERM',
];

/** This many interrupts in a row mean it: the first process of a container ignores signals that it has no handler for. */
const INTERRUPTS_TO_KILL = 3;

/** A daemon may be restarted under a running command, which goes on. */
export const PATIENCE_MS = 60_000;

/** Output that the shim still hands over after the exit; it waits two seconds itself for the process's children. */
const DRAIN_MS = 10_000;

/** What a process gets to end after the reader of its output has gone. */
const BROKEN_PIPE_MS = 1000;

/** Runs `start` with the process's streams connected to this command's, and waits for the process's end. */
export async function attend(
  session: Session,
  target: Process,
  options: AttachmentOptions,
  start: () => Promise<unknown>,
): Promise<Exit> {
  const { call } = session;
  const undo: (() => void)[] = [];
  try {
    if (options.terminal) undo.push(enterRawMode());
    const copied = copyStreams(session, target, options.terminal);
    // Awaited when the process has ended; until then a failure is no reason to leave it.
    copied.catch(() => {});
    const started = Promise.withResolvers<void>();
    // From the first moment: a signal that comes while the process is being started is kept for it.
    if (options.signals && !options.terminal) undo.push(forwardSignals(target, started.promise));
    // A container's terminal is there before its process, which then never sees another size; that of an exec is not.
    const follow = options.terminal ? followSize((size) => attempt(target.resize(size)), undo) : undefined;
    await follow?.();
    await start();
    started.resolve();
    await follow?.();
    const exit = await target.wait({ ...call, patience: PATIENCE_MS });
    await Promise.race([copied, sleep(DRAIN_MS, undefined, { ref: false })]);
    return exit;
  } finally {
    for (const each of undo.reverse()) each();
    process.stdin.destroy();
  }
}

async function copyStreams(session: Session, target: Process, terminal: boolean): Promise<void> {
  const { stdin, stdout, stderr } = target;
  if (stdin !== undefined) {
    // The end of the input closes the process's stdin; a terminal has no end, it is only left.
    const end = () => (terminal ? stdin.destroy() : stdin.end());
    process.stdin.on('error', end).on('end', end).pipe(stdin, { end: false });
  }
  try {
    await Promise.all([copyOut(stdout, 1), copyOut(stderr, 2)]);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPIPE') throw error;
    // A process that ran here would get SIGPIPE. The first one of a container may ignore it.
    await attempt(target.kill('SIGPIPE', session.call));
    await sleep(BROKEN_PIPE_MS);
    await attempt(target.kill('SIGKILL', session.call));
  }
}

function forwardSignals(target: Process, started: Promise<void>): () => void {
  let interrupts = 0;
  const forward = (signal: NodeJS.Signals) => {
    if (signal === 'SIGINT' || signal === 'SIGTERM') interrupts += 1;
    if (interrupts < INTERRUPTS_TO_KILL) {
      void attempt(started.then(() => target.kill(signal)));
      return;
    }
    console.error(`moor: ${INTERRUPTS_TO_KILL} interrupts: killing ${target.containerId}`);
    void attempt(started.then(() => target.kill('SIGKILL', { all: target.execId === '' })));
  };
  for (const signal of FORWARDED) process.on(signal, forward);
  return () => {
    for (const signal of FORWARDED) process.off(signal, forward);
  };
}

/** The process may end at any moment; then there is nothing to signal or to resize any more. */
async function attempt(call: Promise<void>): Promise<void> {
  try {
    await call;
  } catch {
    // The wait for the process tells how it ended, or that the daemon is gone.
  }
}
