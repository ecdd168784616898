/** What a bundle keeps about its shim, in `bootstrap.json`: enough to find the shim again, or to clean up after it. */
import { existsSync } from 'node:fs';
import { refuseNewer } from './format.ts';

/** Versions of the task service that a shim may speak; the messages are the same. */
export type TaskApiVersion = 2 | 3;

export interface Bootstrap {
  /** The runtime as the client named it. */
  readonly runtime: string;
  /** The foreign shim's program; empty for Moor's own shim. */
  readonly binary: string;
  readonly apiVersion: TaskApiVersion;
  /** The shim's socket, as `TtrpcClient.connect` takes it; empty while a foreign shim has not said where it listens. */
  readonly address: string;
  /** The sandbox whose shim it is, which outlives the task; undefined for a shim that was started for the task. */
  readonly sandbox?: string | undefined;
}

/** Raised by whatever changes a reader of the file must know of. */
const FORMAT = 2;
/** Of records without a sandbox, which every reader understands: one that knows of none would end the sandbox with the task. */
const WITHOUT_SANDBOX = 1;

/** Whether a shim may be listening there: an abstract socket cannot be looked at. */
export function mayListen(address: string): boolean {
  return !address.startsWith('/') || existsSync(address);
}

export function formatBootstrap(bootstrap: Bootstrap): string {
  const version = bootstrap.sandbox === undefined ? WITHOUT_SANDBOX : FORMAT;
  return `${JSON.stringify({ version, protocol: 'ttrpc', ...bootstrap })}\n`;
}

/**
 * Undefined when the text is no such record: cut short, or damaged.
 * @throws RpcError FailedPrecondition when a newer daemon has written it in a format unknown here.
 */
export function parseBootstrap(text: string, path: string): Bootstrap | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const { version, runtime, binary, apiVersion, address, sandbox } = value as Record<string, unknown>;
  refuseNewer(path, version, FORMAT);
  if (version !== FORMAT && version !== WITHOUT_SANDBOX) return undefined;
  if (apiVersion !== 2 && apiVersion !== 3) return undefined;
  if (typeof runtime !== 'string' || typeof binary !== 'string' || typeof address !== 'string')
    return undefined;
  const shim: Bootstrap = { runtime, binary, apiVersion, address };
  if (version === WITHOUT_SANDBOX) return shim;
  return typeof sandbox === 'string' ? { ...shim, sandbox } : undefined;
}
