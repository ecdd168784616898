/** `moord` with a daemon's own flags and another command than to serve. */
import { spawn } from 'node:child_process';
import type { Daemon } from './daemon.ts';
import { type Outcome, outcomeOf } from './program.ts';

/** Runs it to its end, whatever its exit code. */
export function moord(daemon: Daemon, ...args: string[]): Promise<Outcome> {
  const [command = '', ...flags] = daemon.commandLine();
  return outcomeOf(spawn(command, [...flags, ...args]), 'moord', args);
}
