/** What is kept of a sandbox in its bundle beside its shim's bootstrap record, in `sandbox.json`. */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Timestamp } from '../../proto/gen/google/protobuf/timestamp.ts';
import { hasCode } from '../runtime/bundle.ts';
import { formatTime, parseTime } from '../runtime/exit.ts';
import { refuseNewer } from '../runtime/format.ts';

/**
 * How far it is; how it has ended is in the bundle's exit record. Without a record its creation was cut off, and is undone.
 * - created: the shim has it
 * - started: it runs, or has ended
 * - doomed: it is being removed
 */
export interface SandboxRecord {
  readonly step: 'created' | 'started' | 'doomed';
  /** Of the process that it lives by; 0 when it has none, or has not been started. */
  readonly pid: number;
  readonly createdAt: Timestamp;
}

const FILE = 'sandbox.json';
const FORMAT = 1;
const STEPS: readonly unknown[] = ['created', 'started', 'doomed'];

/** @param bundle the directory. A reader sees the old record or the new one. */
export function writeRecord(bundle: string, { step, pid, createdAt }: SandboxRecord): void {
  const text = `${JSON.stringify({ version: FORMAT, step, pid, createdAt: formatTime(createdAt) })}\n`;
  const temporary = join(bundle, `.${FILE}`);
  writeFileSync(temporary, text, { mode: 0o600 });
  renameSync(temporary, join(bundle, FILE));
}

/**
 * Undefined when there is none.
 * @throws RpcError FailedPrecondition when a newer daemon has written it
 */
export function readRecord(bundle: string): SandboxRecord | undefined {
  const path = join(bundle, FILE);
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    if (error instanceof SyntaxError || hasCode(error, 'ENOENT')) return undefined;
    throw error;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const { version, step, pid, createdAt } = value as Record<string, unknown>;
  refuseNewer(path, version, FORMAT);
  const time = typeof createdAt === 'string' ? parseTime(createdAt) : undefined;
  if (!STEPS.includes(step) || typeof pid !== 'number' || time === undefined) return undefined;
  return { step: step as SandboxRecord['step'], pid, createdAt: time };
}
