import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { constants, mount } from '../../native/native.ts';
import { internal, messageOf } from '../../ttrpc/errors.ts';

/** Keeps the network namespace that a process is in by a file, which must not be there. */
export function keepNamespaceOf(pid: number, path: string): void {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o711 });
    writeFileSync(path, '', { flag: 'wx', mode: 0o444 });
    mount(`/proc/${pid}/ns/net`, path, '', constants.MS_BIND, '');
  } catch (error) {
    throw internal(
      `cannot keep the network namespace of process ${pid} at ${path}: ${messageOf(error)}`,
      error,
    );
  }
}
