import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Exit } from './reaper.ts';
import { fromRfc3339, toRfc3339 } from './timestamp.ts';

const FILE = 'exit.json';

/** Of the record; daemons refuse one that is newer than they know. */
const FORMAT = 1;

/** How a bundle's init has ended, and whether the daemon has acknowledged the news. */
export interface ExitRecord {
  readonly exit: Exit;
  readonly published: boolean;
}

/** Writes down an exit for those who come after this shim. Whoever reads it sees all of it or nothing. */
export function writeExitRecord(bundle: string, { exit, published }: ExitRecord): void {
  const { pid, status, at } = exit;
  const path = join(bundle, FILE);
  const temporary = `${path}.new`;
  writeFileSync(
    temporary,
    JSON.stringify({ version: FORMAT, pid, status, exitedAt: toRfc3339(at), published }),
    {
      mode: 0o600,
    },
  );
  renameSync(temporary, path);
}

/** Undefined when the init had not ended, or its shim did not come to write it down. */
export function readExitRecord(bundle: string): ExitRecord | undefined {
  try {
    const { pid, status, exitedAt, published } = JSON.parse(readFileSync(join(bundle, FILE), 'utf8')) as {
      pid: number;
      status: number;
      exitedAt: string;
      published: boolean;
    };
    return { exit: { pid, status, at: fromRfc3339(exitedAt) }, published };
  } catch {
    return undefined;
  }
}
