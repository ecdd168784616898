/**
 * What a shim has written down of its container (`state.json`, by shim/state-record.ts). As long as the file is there it is the
 * truth: a daemon that has just been started need not wake the shim to know it.
 */
import { Status } from '../../proto/gen/containerd/types/task.ts';

const VERSION = 1;

const STATUS: Readonly<Record<string, Status>> = {
  created: Status.CREATED,
  running: Status.RUNNING,
  paused: Status.PAUSED,
  stopped: Status.STOPPED,
};

export interface StateRecord {
  readonly shim: { readonly pid: number; readonly started: string };
  readonly status: Status;
  /** The first process's; 0 for a container that is yet to be restored. */
  readonly pid: number;
  readonly stdin: string;
  readonly stdout: string;
  readonly stderr: string;
  readonly terminal: boolean;
}

/** Undefined when the text is no such record, or one of a later form. */
export function parseState(text: string): StateRecord | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isObject(value) || value['version'] !== VERSION || !isObject(value['shim'])) return undefined;
  const { pid: shimPid, started } = value['shim'];
  const { pid, stdin, stdout, stderr, terminal } = value;
  const status = STATUS[String(value['status'])];
  if (status === undefined || !isPid(shimPid) || shimPid === 0 || !isText(started) || started === '')
    return undefined;
  if (!isPid(pid) || !isText(stdin) || !isText(stdout) || !isText(stderr)) return undefined;
  const shim = { pid: shimPid, started };
  return { shim, status, pid, stdin, stdout, stderr, terminal: terminal === true };
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null;
const isText = (value: unknown): value is string => typeof value === 'string';
const isPid = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
