/** How a container's first process ended, and how that is written down. */
import type { Logger } from 'pino';
import type { Timestamp } from '../../proto/gen/google/protobuf/timestamp.ts';
import { refuseNewer } from './format.ts';

export interface Exit {
  readonly pid: number;
  /** What a shell would report: the exit code, or 128 plus the number of the signal. */
  readonly status: number;
  readonly exitedAt: Timestamp;
}

/** An exit as a bundle keeps it, in `exit.json` (written by the shim) and `dead.json` (by the daemon). */
export interface ExitRecord extends Exit {
  /** Subscribers have been given the exit event. */
  readonly published: boolean;
}

/** What a process killed with SIGKILL reports. */
export const KILLED = 128 + 9;

/** Of the record. The first shims wrote none. */
const FORMAT = 1;

/** RFC 3339 in UTC with nine digits of the second. */
export function formatTime(time: Timestamp): string {
  const seconds = new Date(Number(time.seconds) * 1000).toISOString().slice(0, 19);
  return `${seconds}.${String(time.nanos).padStart(9, '0')}Z`;
}

/** Undefined when the text is not RFC 3339. */
export function parseTime(text: string): Timestamp | undefined {
  const parts = /^(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)$/.exec(text);
  if (parts === null) return undefined;
  const milliseconds = Date.parse(`${parts[1]}${parts[3]}`);
  if (Number.isNaN(milliseconds)) return undefined;
  return { seconds: BigInt(milliseconds / 1000), nanos: Number((parts[2] ?? '').padEnd(9, '0')) };
}

export function formatExit(record: ExitRecord): string {
  const { pid, status, published } = record;
  return `${JSON.stringify({ version: FORMAT, pid, status, exitedAt: formatTime(record.exitedAt), published })}\n`;
}

/**
 * Undefined when the text is not an exit record.
 * @throws RpcError FailedPrecondition when a newer shim or daemon has written it in a format unknown here
 */
export function parseExit(text: string, path: string): ExitRecord | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const { version, pid, status, exitedAt, published } = value as Record<string, unknown>;
  refuseNewer(path, version, FORMAT);
  const time = typeof exitedAt === 'string' ? parseTime(exitedAt) : undefined;
  if (!isU32(pid) || !isU32(status) || time === undefined) return undefined;
  return { pid, status, exitedAt: time, published: published === true };
}

function isU32(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) < 2 ** 32;
}

/** Writes an exit down. Without room on the disk it is known, and told, all the same. */
export function record(log: Logger, write: () => void): void {
  try {
    write();
  } catch (error) {
    log.warn({ err: error }, 'an exit cannot be written down');
  }
}
