/** Trees of files for tests: one with something of everything, a change of every kind, and all there is to know of one. */
import { createHash } from 'node:crypto';
import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { type ByteString, getXattr, listXattrs, lstat, S_IF, setXattr } from '../../../native/native.ts';

/** A tree with something of everything. */
export const BASE = `
  mkdir -p etc usr/lib usr/deep/er/est empty replaced; echo host > etc/hosts; echo old > etc/old
  echo a > usr/lib/a; ln usr/lib/a usr/lib/a2; ln -s lib/a usr/soft; echo x > usr/deep/er/est/file
  echo f > replaced/file; echo g > becomes-folder; ln -s nowhere becomes-file
  mkfifo fifo; mknod null c 1 3; echo same > same; echo twin > twin1; ln twin1 twin2
  touch -d '2020-01-01 00:00:00.123456789' etc/hosts; touch -d '2020-01-01' etc/old same usr/lib usr`;

/** And a change to it of every kind. */
export const CHANGE = `
  rm etc/old; echo changed > etc/hosts; chmod 4755 usr/lib/a; chown 12:34 same; rm -r empty
  rm -r replaced; echo now a file > replaced; rm becomes-folder; mkdir becomes-folder; echo in > becomes-folder/x
  rm becomes-file; echo file > becomes-file; rm -r usr/deep; mkdir usr/deep; echo new > usr/deep/new
  mkdir -m 1777 made; echo h > made/hard1; ln made/hard1 made/hard2; ln -s /abs made/soft; mkfifo -m 640 made/fifo
  mknod made/block b 7 300; chown -h 5:6 made/soft; touch -h -d '2001-01-01 00:00:00.5' made/soft
  cp /bin/true made/capable; head -c 300000 /dev/urandom > made/large; truncate -s 5M made/hole
  chown 3000000000:4000000000 made/large; touch -d '1960-02-03 04:05:06.75' made/large; rm -f null
  mkdir -p "made/$(printf 'd%.0s' {1..150})"; echo l > "made/$(printf 'd%.0s' {1..150})/$(printf 'f%.0s' {1..200})"
  echo u > 'made/ünï cödé'; echo b > $'made/\\xff\\xfe'; ln -s "$(printf 't%.0s' {1..300})" made/long-link; mkdir made/empty`;

const CAPABILITY = Buffer.from('0100000280200000000000000000000000000000', 'hex');

/** What no program of a plain Debian sets. */
export function addXattrs(root: string): void {
  if (lstat(join(root, 'made')) === undefined) return;
  setXattr(join(root, 'made'), 'user.note', Buffer.from('folder'));
  setXattr(join(root, 'made/hard1'), 'user.note', Buffer.from([0, 0xff, 0x0a]));
  setXattr(join(root, 'made/capable'), 'security.capability', CAPABILITY);
}

/** Everything there is to know of a tree, one line a name. Names of one file are given the same number. */
export function describeTree(root: string): string[] {
  const names: ByteString[] = [];
  const walk = (folder: ByteString) => {
    for (const name of readdirSync(Buffer.from(folder, 'latin1'), 'latin1').sort()) {
      names.push(`${folder}/${name}`);
      if (isFolder(`${folder}/${name}`)) walk(`${folder}/${name}`);
    }
  };
  walk(root);
  // Not the kernel's count of links: in an overlay, that of a lower file counts names that are hidden.
  const files = Map.groupBy(
    names.filter((path) => !isFolder(path)),
    (path) => lstat(path)?.identity ?? '',
  );
  const linked = [...files.values()].filter(({ length }) => length > 1);
  return names.map((path) => {
    const number = linked.findIndex((group) => group.includes(path));
    return `${path.slice(root.length + 1)} ${describeFile(path)}${number === -1 ? '' : ` #${number}`}`;
  });
}

function isFolder(path: ByteString): boolean {
  return ((lstat(path)?.mode ?? 0) & S_IF.MT) === S_IF.DIR;
}

function describeFile(path: ByteString): string {
  const status = lstat(path);
  if (status === undefined) return 'gone';
  const { mode, uid, gid, mtime, major, minor } = status;
  const type = mode & S_IF.MT;
  const raw = Buffer.from(path, 'latin1');
  const words = [mode.toString(8), `${uid}:${gid}`, `${mtime.seconds}.${mtime.nanos}`];
  if (type === S_IF.REG) words.push(describeContent(readFileSync(raw)));
  if (type === S_IF.LNK) words.push(`-> ${readlinkSync(raw, 'latin1')}`);
  if (type === S_IF.CHR || type === S_IF.BLK) words.push(`${major}/${minor}`);
  for (const xattr of listXattrs(path).sort()) {
    if (xattr === 'security.selinux') continue;
    words.push(`${xattr}=${getXattr(path, xattr)?.toString('hex')}`);
  }
  return words.join(' ');
}

function describeContent(content: Buffer): string {
  if (content.length <= 40) return JSON.stringify(content.toString('latin1'));
  return `${content.length}:${createHash('sha256').update(content).digest('hex').slice(0, 16)}`;
}
