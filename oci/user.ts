import { invalidArgument, notFound } from '../ttrpc/errors.ts';
import type { User } from './spec.ts';
import { RootDirectory } from './root-directory.ts';

/** runc takes no larger id. */
const MAX_ID = 2 ** 31 - 1;

/**
 * Who a process runs as, looked up in a root filesystem's own /etc/passwd and /etc/group: `user`, `uid`, `user:group`,
 * `uid:gid` and mixtures (OCI image specification, config.md). A number that has no entry is taken as it is, with group 0.
 *
 * @param root the root filesystem, or its path, absolute on this host
 * @throws RpcError NotFound for a name without an entry, InvalidArgument for anything else
 */
export function lookUpUser(user: string, root: string | RootDirectory): User {
  const [name = '', group, ...rest] = user.split(':');
  if (rest.length > 0 || name === '' || group === '') throw invalidArgument(`invalid user: ${user}`);
  const [uid, numericGid] = [idOf(name), idOf(group ?? '')];
  // Nothing to look up, so the root filesystem need not be there.
  if (uid !== undefined && numericGid !== undefined) {
    return { uid, gid: numericGid, additionalGids: [numericGid] };
  }
  if (typeof root === 'string') {
    using directory = RootDirectory.open(root);
    return lookUpUser(user, directory);
  }
  const entry = entryOf(name, root);
  const gid = group === undefined ? entry.gid : gidOf(group, root);
  const others = group === undefined ? supplementaryGids(entry.name, root) : [];
  return { uid: entry.uid, gid, additionalGids: withFirst(gid, others) };
}

/**
 * The user of an image's configuration, as containerd has it: unlike a user that was asked for, one with a group is in the
 * user's other groups, too, and root in those of its name.
 *
 * @param user empty for root
 * @throws RpcError as `lookUpUser`
 */
export function imageUser(user: string, root: RootDirectory): User {
  if (user === '') return { uid: 0, gid: 0, additionalGids: withFirst(0, supplementaryGids('root', root)) };
  const { uid, gid } = lookUpUser(user, root);
  const { name } = entryOf(String(uid), root);
  return { uid, gid, additionalGids: withFirst(gid, supplementaryGids(name, root)) };
}

interface PasswdEntry {
  readonly name: string | undefined;
  readonly uid: number;
  readonly gid: number;
}

function entryOf(user: string, root: RootDirectory): PasswdEntry {
  const number = idOf(user);
  for (const [name, , uid = '', gid = ''] of linesOf(root, 'etc/passwd')) {
    const entry = { name, uid: idOf(uid), gid: idOf(gid) };
    // A line without ids is nobody's.
    if (entry.uid === undefined || entry.gid === undefined) continue;
    if (number === undefined ? name === user : entry.uid === number) return entry as PasswdEntry;
  }
  if (number === undefined) throw notFound(`no user ${user} in the container's /etc/passwd`);
  return { name: undefined, uid: number, gid: 0 };
}

function gidOf(group: string, root: RootDirectory): number {
  const number = idOf(group);
  if (number !== undefined) return number;
  const fields = linesOf(root, 'etc/group').find(
    ([name, , gid = '']) => name === group && idOf(gid) !== undefined,
  );
  if (fields === undefined) throw notFound(`no group ${group} in the container's /etc/group`);
  return Number(fields[2]);
}

function supplementaryGids(user: string | undefined, root: RootDirectory): number[] {
  if (user === undefined) return [];
  return linesOf(root, 'etc/group')
    .filter(([name, , , members = '']) => name !== user && members.split(',').includes(user))
    .map(([, , gid = '']) => idOf(gid))
    .filter((gid) => gid !== undefined);
}

function withFirst(gid: number, others: readonly number[]): number[] {
  return [...new Set([gid, ...others])];
}

function idOf(text: string): number | undefined {
  return /^\d+$/.test(text) && Number(text) <= MAX_ID ? Number(text) : undefined;
}

function linesOf(root: RootDirectory, path: string): string[][] {
  const text = root.readText(path) ?? '';
  return text
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.split(':').map((field) => field.trim()));
}
