/** What the disk says when it refuses, as the failure that callers are told. */
import { RpcError, internal, resourceExhausted } from '../../ttrpc/errors.ts';
import { shortage } from '../shortage.ts';

/** No blocks, no inodes (ENOSPC for both), or the quota is used up. */
const FULL: ReadonlySet<string | undefined> = new Set(['ENOSPC', 'EDQUOT']);

/**
 * ResourceExhausted when the disk is full or no file can be opened any more, Internal for everything else. The message names the path and the cause.
 *
 * @param action what was being done: `write`
 */
export function storageError(action: string, path: string, error: unknown): RpcError {
  if (error instanceof RpcError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  if (FULL.has(code)) return resourceExhausted(`${action} ${path}: no space left on device`, error);
  const wanting = shortage(error);
  if (wanting !== undefined) return resourceExhausted(`${action} ${path}: ${wanting}`, error);
  return internal(`${action} ${path}: ${message}`, error);
}

export function isMissing(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'ENOENT';
}
