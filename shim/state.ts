import { failedPrecondition, notFound } from '../ttrpc/errors.ts';
import type { Exit } from './reaper.ts';

/**
 * What a process is at. Only the functions below make one state from another, and they take the states that may become it:
 * a wrong transition does not compile.
 */
export type State = Created | Running | Paused | Stopped | Deleted;

/** Known, but its program does not run yet. An init has a pid already, an exec or a restored init has none. */
export interface Created {
  readonly status: 'created';
  readonly pid: number | undefined;
}

export interface Running {
  readonly status: 'running';
  readonly pid: number;
}

/** Frozen with all of its container. Only inits are: their execs follow. */
export interface Paused {
  readonly status: 'paused';
  readonly pid: number;
}

export interface Stopped {
  readonly status: 'stopped';
  readonly exit: Exit;
}

export interface Deleted {
  readonly status: 'deleted';
  /** Undefined for what was deleted before it ever ran. */
  readonly exit: Exit | undefined;
}

export const created = (pid: number | undefined): Created => ({ status: 'created', pid });
export const started = (_from: Created, pid: number): Running => ({ status: 'running', pid });
export const paused = ({ pid }: Running): Paused => ({ status: 'paused', pid });
export const resumed = ({ pid }: Paused): Running => ({ status: 'running', pid });
export const stopped = (_from: Created | Running | Paused, exit: Exit): Stopped => ({
  status: 'stopped',
  exit,
});
export const deleted = (from: Created | Stopped): Deleted => ({
  status: 'deleted',
  exit: from.status === 'stopped' ? from.exit : undefined,
});

/** The pid of a process that exists or existed; 0 when it never had one, as the wire has it. */
export function pidOf(state: State): number {
  if (state.status === 'stopped' || state.status === 'deleted') return state.exit?.pid ?? 0;
  return state.pid ?? 0;
}

type In<S extends State['status']> = Extract<State, { status: S }>;

/**
 * The state, if it is one of those in which `what` can be done.
 *
 * @throws RpcError FailedPrecondition; NotFound for a deleted process
 */
export function demand<S extends State['status']>(state: State, what: string, ...allowed: S[]): In<S> {
  if ((allowed as string[]).includes(state.status)) return state as In<S>;
  const message = `cannot ${what} a ${state.status} process`;
  throw state.status === 'deleted' ? notFound(message) : failedPrecondition(message);
}
