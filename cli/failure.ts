/** What an operator is told when a command fails: the cause in one line, and what can be done about it in another. */
import type { GlobalOptions } from './session.ts';

/** A failure of the command line's own, with what to do about it. */
export class Failure extends Error {
  override readonly name = 'Failure';
  readonly hint: string | undefined;

  constructor(message: string, hint?: string) {
    super(message);
    this.hint = hint;
  }
}

interface Explanation {
  readonly message: string;
  readonly hint?: string;
}

type Advice = (match: RegExpExecArray, globals: GlobalOptions) => string | Explanation;

/** By what the message says. Daemons word it alike, as it is part of the API that scripts know. */
const ADVICE: readonly (readonly [RegExp, Advice])[] = [
  [
    /^cannot connect to (\S+): connect ENOENT/,
    ([, socket]) => ({
      message: `cannot connect to ${socket}: there is no such socket`,
      hint: `is the daemon running? Start it with: moord --address ${socket}`,
    }),
  ],
  [
    /^cannot connect to (\S+): connect ECONNREFUSED/,
    ([, socket]) => ({
      message: `cannot connect to ${socket}: nobody listens there`,
      hint: `the daemon has stopped. Start it with: moord --address ${socket}`,
    }),
  ],
  [
    /^cannot connect to (\S+): connect EACCES/,
    ([, socket]) => ({
      message: `cannot connect to ${socket}: permission denied`,
      hint: 'run this as root, or as a member of the group that owns the socket',
    }),
  ],
  [/^cannot connect to \S+ in time/, () => 'the daemon did not answer within --connect-timeout'],
  [
    /^(?:container|task) "?([^"\s]+)"?.*not found/,
    (_, { namespace }) =>
      `namespace ${namespace} does not have it. See: moor --namespace ${namespace} containers ls, moor namespaces ls`,
  ],
  [
    /no running task|process (?:does not exist|already finished)|task \S+ not found|no such (?:task|process)/,
    (_, { namespace }) => `see what runs: moor --namespace ${namespace} tasks ls`,
  ],
  [
    /^container "?([^"\s]+)"?.*already exists/,
    ([, id], { namespace }) =>
      `choose another id, or remove it: moor --namespace ${namespace} containers rm ${id}`,
  ],
  [/namespace "?([^"\s]+)"? must be empty|namespace.*not empty/, () => 'remove what is in it first'],
  [/running process|must be stopped|task.*is running|is not stopped/, () => 'stop it first: moor tasks kill'],
  [
    /^image "?([^"\s]+)"?: not found/,
    ([, image], { namespace }) =>
      `namespace ${namespace} does not have it. Fetch it: moor --namespace ${namespace} image pull ${image}`,
  ],
  [
    /^snapshot "?([^"\s]+)"?: already exists/,
    ([, key], { namespace }) =>
      `an attempt that was cut off leaves it for five minutes. Remove it: moor --namespace ${namespace} snapshots rm ${key}`,
  ],
  [/namespace is required/, () => 'name one with --namespace'],
];

/** A failure as the lines to print: the message and, where an operator can act, a hint. */
export function explain(error: unknown, globals: GlobalOptions): readonly string[] {
  const message = error instanceof Error ? error.message : String(error);
  const lines = (text: string, hint: string | undefined) => [
    `moor: ${text}`,
    ...(hint === undefined ? [] : [`hint: ${hint}`]),
  ];
  if (error instanceof Failure) return lines(message, error.hint);
  for (const [pattern, advise] of ADVICE) {
    const match = pattern.exec(message);
    if (match === null) continue;
    const advice = advise(match, globals);
    return typeof advice === 'string' ? lines(message, advice) : lines(advice.message, advice.hint);
  }
  return lines(message, undefined);
}

/** The command line itself was wrong: 2, as shells have it. */
export const USAGE_STATUS = 2;

/** Moor failed: 1, as ctr has it. */
export const FAILURE_STATUS = 1;

/**
 * The exit status when no process could be run. It is told apart from what a process says by itself, by the numbers that
 * docker run and shells have: 127 for a command that is not there, 126 for one that cannot be executed, else 125.
 */
export function launchStatus(error: unknown): number {
  const message = error instanceof Error ? error.message : '';
  if (/exec: .*(?:executable file not found|no such file or directory)/.test(message)) return 127;
  if (/exec: .*permission denied/.test(message)) return 126;
  return 125;
}

/** Runs what is to run a process. When none could be run, the exit status says so. */
export async function launching(act: () => Promise<void>): Promise<void> {
  try {
    await act();
  } catch (error) {
    process.exitCode = launchStatus(error);
    throw error;
  }
}
