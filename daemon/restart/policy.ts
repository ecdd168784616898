/**
 * What the labels of a container ask of the restart monitor: containerd's (runtime/restart), with the policies of its newer
 * versions, and two of Moor's own.
 */
import type { Labels } from '../metadata/labels.ts';

/** `running` or `stopped`: the state that the container is to be kept in. Without it, the monitor leaves a container alone. */
export const STATUS = 'containerd.io/restart.status';
/** `always` (also when it is missing), `on-failure[:MAXIMUM]`, `unless-stopped` or `no`. */
export const POLICY = 'containerd.io/restart.policy';
/** How often the container has been started again. */
export const COUNT = 'containerd.io/restart.count';
/** `true` when somebody has stopped the container on purpose. */
export const EXPLICITLY_STOPPED = 'containerd.io/restart.explicitly-stopped';
export const LOG_URI = 'containerd.io/restart.loguri';
/** A log file's path; what clients wrote before there were URIs. */
export const LOG_PATH = 'containerd.io/restart.logpath';
/** How long the monitor waited before the last start, for those who wonder. */
export const DELAY = 'moor.restart.delay';
/**
 * While a start is under way, the pid of the process that had ended (0 for none): a daemon that is killed between deleting the old
 * task and starting the new one finds neither, and this tells the next one. `failed` when it came to nothing, and is to be tried
 * again.
 */
export const PENDING = 'moor.restart.pending';
const FAILED = 'failed';

export type Policy =
  | { readonly kind: 'always' | 'unless-stopped' | 'no' }
  /** `maximum` 0: as often as it takes. */
  | { readonly kind: 'on-failure'; readonly maximum: number };

/** How a container is found. Absent: it has no task. */
export type Observed =
  | { readonly kind: 'absent' | 'created' | 'alive' | 'unknown' }
  | { readonly kind: 'stopped'; readonly pid: number; readonly exitStatus: number };

export type Decision = 'start' | 'stop' | 'leave';

/** Undefined for a policy that is none. */
export function parsePolicy(text: string): Policy | undefined {
  switch (text) {
    case '':
    case 'always':
      return { kind: 'always' };
    case 'unless-stopped':
    case 'no':
      return { kind: text };
    default: {
      const maximum = /^on-failure(?::(\d{1,9}))?$/.exec(text);
      return maximum === null ? undefined : { kind: 'on-failure', maximum: Number(maximum[1] ?? 0) };
    }
  }
}

/** How often the container has been started again; 0 for a label that is no number. */
export function countOf(labels: Labels): number {
  const text = labels[COUNT] ?? '';
  return /^\d{1,15}$/.test(text) ? Number(text) : 0;
}

/** The value of PENDING with a start that begins now, and with one that has failed. */
export const pendingFor = (observed: Observed): string =>
  String(observed.kind === 'stopped' ? observed.pid : 0);
export const pendingAgain = FAILED;

/** A start has been counted, and has not come to its end. */
export function isUnderWay(labels: Labels, observed: Observed): boolean {
  const pending = labels[PENDING] ?? FAILED;
  if (pending === FAILED) return false;
  // Another process has come of it since, and has ended.
  return observed.kind !== 'stopped' || String(observed.pid) === pending;
}

/** What is to be done with a container of these labels. */
export function decide(labels: Labels, observed: Observed): Decision {
  const wish = labels[STATUS];
  const isOver = observed.kind === 'absent' || observed.kind === 'stopped';
  if (wish === 'stopped') return isOver || observed.kind === 'unknown' ? 'leave' : 'stop';
  if (wish !== 'running') return 'leave';
  // Its creator may be about to start it; or the monitor was, when its daemon was killed.
  if (observed.kind === 'created') return isUnderWay(labels, observed) ? 'start' : 'leave';
  if (!isOver) return 'leave';
  return isWanted(labels, observed) ? 'start' : 'leave';
}

function isWanted(labels: Labels, observed: Observed): boolean {
  const policy = parsePolicy(labels[POLICY] ?? '');
  switch (policy?.kind) {
    case 'always':
      return true;
    case 'unless-stopped':
      return !/^(?:1|t|true)$/i.test(labels[EXPLICITLY_STOPPED] ?? '');
    case 'on-failure': {
      if (isUnderWay(labels, observed)) return true;
      const hasFailed = observed.kind === 'stopped' ? observed.exitStatus !== 0 : labels[PENDING] === FAILED;
      return hasFailed && (policy.maximum === 0 || countOf(labels) < policy.maximum);
    }
    case 'no':
    case undefined:
      break;
  }
  return false;
}

/** Where a container that is started again writes to; empty for nowhere. */
export function logOf(labels: Labels): string {
  const path = labels[LOG_PATH];
  return labels[LOG_URI] ?? (path === undefined ? '' : new URL(`file://${path}`).href);
}
