import { lstatSync, readFileSync, readlinkSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';
import { invalidArgument, notFound } from '../ttrpc/errors.ts';
import type { User } from './oci.ts';

/** runc takes no larger id. */
const MAX_ID = 2 ** 31 - 1;

/** As many symbolic links as the kernel follows in one path (path_resolution(7)). */
const MAX_LINKS = 40;

/**
 * Who a process runs as, looked up in a root filesystem's own /etc/passwd and /etc/group: `user`, `uid`, `user:group`,
 * `uid:gid` and mixtures (OCI image specification, config.md). A number that has no entry is taken as it is, with group 0.
 *
 * @param rootfs its path, absolute on this host
 * @throws RpcError NotFound for a name without an entry, InvalidArgument for anything else
 */
export function lookUpUser(user: string, rootfs: string): User {
  const [name = '', group, ...rest] = user.split(':');
  if (rest.length > 0 || name === '' || group === '') throw invalidArgument(`invalid user: ${user}`);
  const [uid, numericGid] = [idOf(name), idOf(group ?? '')];
  // Nothing to look up, so the root filesystem need not be there.
  if (uid !== undefined && numericGid !== undefined) {
    return { uid, gid: numericGid, additionalGids: [numericGid] };
  }
  const entry = entryOf(name, rootfs);
  const gid = group === undefined ? entry.gid : gidOf(group, rootfs);
  const additionalGids =
    group === undefined && entry.name !== undefined ? supplementaryGids(entry.name, rootfs) : [];
  return { uid: entry.uid, gid, additionalGids: [gid, ...additionalGids.filter((other) => other !== gid)] };
}

interface PasswdEntry {
  readonly name: string | undefined;
  readonly uid: number;
  readonly gid: number;
}

function entryOf(user: string, rootfs: string): PasswdEntry {
  const number = idOf(user);
  const fields = linesOf(rootfs, 'etc/passwd').find(([name, , uid]) =>
    number === undefined ? name === user : Number(uid) === number,
  );
  if (fields !== undefined) return { name: fields[0], uid: Number(fields[2]), gid: Number(fields[3]) };
  if (number === undefined) throw notFound(`no user ${user} in the container's /etc/passwd`);
  return { name: undefined, uid: number, gid: 0 };
}

function gidOf(group: string, rootfs: string): number {
  const number = idOf(group);
  if (number !== undefined) return number;
  const fields = linesOf(rootfs, 'etc/group').find(([name]) => name === group);
  if (fields === undefined) throw notFound(`no group ${group} in the container's /etc/group`);
  return Number(fields[2]);
}

function supplementaryGids(user: string, rootfs: string): number[] {
  return linesOf(rootfs, 'etc/group')
    .filter(([name, , , members = '']) => name !== user && members.split(',').includes(user))
    .map(([, , gid]) => Number(gid));
}

function idOf(text: string): number | undefined {
  return /^\d+$/.test(text) && Number(text) <= MAX_ID ? Number(text) : undefined;
}

function linesOf(rootfs: string, path: string): string[][] {
  const file = resolveIn(rootfs, path);
  const text = file === undefined ? '' : readFileSync(file, 'utf8');
  return text
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.split(':'));
}

/** Follows links as if `root` were the root directory: what a container's file points to is never the host's. */
function resolveIn(root: string, path: string): string | undefined {
  const pending = path.split('/');
  let resolved: string[] = [];
  for (let links = 0; pending.length > 0;) {
    const part = pending.shift()!;
    if (part === '' || part === '.') continue;
    if (part === '..') {
      resolved.pop();
      continue;
    }
    const candidate = join(root, ...resolved, part);
    const stats = lstatSync(candidate, { throwIfNoEntry: false });
    if (stats === undefined) return undefined;
    if (!stats.isSymbolicLink()) {
      resolved.push(part);
      continue;
    }
    links += 1;
    if (links > MAX_LINKS) throw invalidArgument(`too many symbolic links at /${path} in ${root}`);
    const target = readlinkSync(candidate);
    if (isAbsolute(target)) resolved = [];
    pending.unshift(...target.split('/'));
  }
  return join(root, ...resolved);
}
