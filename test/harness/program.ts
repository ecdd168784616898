/** Programs as clients: what they print, how they exit, and how long they take. */
import { AssertionError } from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';

export interface Outcome {
  readonly program: string;
  readonly args: readonly string[];
  /** Exit code; 128 + n when a signal ended the program. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly milliseconds: number;
}

export interface CallOptions {
  /** Written to the program's stdin. Without input, stdin is empty. */
  readonly input?: string | Uint8Array;
  /**
   * The input ends once something has come out: ctr 1.6 overlooks the end of an stdin that comes before the task is
   * created.
   */
  readonly patientInput?: boolean;
  /** Added to the environment, where the caller starts the program. */
  readonly env?: Readonly<Record<string, string>>;
  /** Milliseconds until the program is killed and the call fails. */
  readonly timeout?: number;
}

/**
 * Sees a program to its end, whatever its exit code. Its three streams must be pipes.
 * @throws AssertionError when it hangs
 */
export async function outcomeOf(
  child: ChildProcess,
  program: string,
  args: readonly string[],
  { input, patientInput = false, timeout = 30_000 }: CallOptions = {},
): Promise<Outcome> {
  const began = performance.now();
  const stdout = collect(child.stdout);
  const stderr = collect(child.stderr);
  child.stdin?.on('error', () => undefined); // it may end before it has read everything
  if (input !== undefined && patientInput)
    child.stdin?.write(input, () => child.stdout?.once('data', () => child.stdin?.end()));
  else child.stdin?.end(input);
  const timer = setTimeout(() => child.kill('SIGKILL'), timeout);
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  clearTimeout(timer);
  const milliseconds = performance.now() - began;
  const outcome = { program, args, stdout: stdout(), stderr: stderr(), milliseconds };
  if (signal === 'SIGKILL' && milliseconds >= timeout)
    throw new AssertionError({ message: `hangs for ${timeout} ms: ${describe({ ...outcome, code: 137 })}` });
  return { ...outcome, code: code ?? 128 + (signal === 'SIGKILL' ? 9 : 15) };
}

/**
 * What a program printed that had to succeed.
 * @throws AssertionError when it did not
 */
export function succeeded(outcome: Outcome): string {
  if (outcome.code !== 0) throw new AssertionError({ message: describe(outcome) });
  return outcome.stdout;
}

/** The outcome in words, for failures. */
export function describe({ program, args, code, stdout, stderr, milliseconds }: Outcome): string {
  const said = [stderr.trim(), stdout.trim()].filter((text) => text !== '').join('\n');
  const command = `${program} ${args.join(' ')}`;
  return `${command} → exit ${code} after ${milliseconds.toFixed(0)} ms\n${said.slice(0, 2000)}`;
}

function collect(stream: NodeJS.ReadableStream | null): () => string {
  const chunks: Buffer[] = [];
  stream?.on('data', (chunk: Buffer) => chunks.push(chunk));
  return () => Buffer.concat(chunks).toString();
}
