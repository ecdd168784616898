/** What this host has mounted (proc_pid_mountinfo(5)). */
import { readFileSync } from 'node:fs';
import { failedPrecondition } from '../../../ttrpc/errors.ts';

export interface MountPoint {
  readonly path: string;
  /** `shared:1`, `master:2`: how mounts go from here to others. */
  readonly propagation: readonly string[];
}

/** The mount that a path is on. @param path absolute, without symbolic links */
export function mountPointOf(path: string): MountPoint {
  let found: MountPoint = { path: '', propagation: [] };
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const fields = line.split(' ');
    const mounted = unescape(fields[4] ?? '');
    if (mounted === '' || !isBelow(path, mounted) || mounted.length < found.path.length) continue;
    found = { path: mounted, propagation: fields.slice(6, fields.indexOf('-')) };
  }
  if (found.path === '')
    throw failedPrecondition(`failed to find the mount info for ${JSON.stringify(path)}`);
  return found;
}

export function isBelow(path: string, above: string): boolean {
  return path === above || path.startsWith(above.endsWith('/') ? above : `${above}/`);
}

/** Blanks and their like are octal numbers there. */
function unescape(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}
