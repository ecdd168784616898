/** What the tests of this folder share: places to unpack to, archives made by hand, trees written down. */
import { spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, type TestContext } from 'node:test';
import { type ByteString, constants, mount, unmount } from '../../native/native.ts';
import type { Descriptor } from '../../proto/gen/containerd/types/descriptor.ts';
import type { Mount } from '../../proto/gen/containerd/types/mount.ts';
import { type Entry, NO_XATTRS } from './archive/entry.ts';
import { encodeEntry, END_OF_ARCHIVE, paddingOf } from './archive/writer.ts';
import { type Applied, type Compared, Differ, type DifferOptions } from './differ.ts';

const LAYER = 'application/vnd.oci.image.layer.v1.tar';

/** A folder that goes with the test. */
export function folderFor(context: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'moor-diff-'));
  context.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

/** An overlay's folders; `merged` shows it mounted while `look` runs. */
export class Snapshot {
  readonly folder: string;
  readonly upper: string;
  readonly lowers: readonly string[];

  constructor(folder: string, lowers: readonly string[] = []) {
    this.folder = folder;
    this.upper = join(folder, 'fs');
    this.lowers = lowers;
    for (const name of ['fs', 'work', 'merged']) mkdirSync(join(folder, name), { recursive: true });
  }

  /** As containerd's overlay snapshotter gives them out. */
  get mounts(): Mount[] {
    if (this.lowers.length === 0) {
      return [{ type: 'bind', source: this.upper, target: '', options: ['rw', 'rbind'] }];
    }
    const options = [
      'index=off',
      `workdir=${this.folder}/work`,
      `upperdir=${this.upper}`,
      `lowerdir=${this.lowers.join(':')}`,
    ];
    return [{ type: 'overlay', source: 'overlay', target: '', options }];
  }

  /** What a view of the same tree would be given. */
  get viewMounts(): Mount[] {
    const layers = [this.upper, ...this.lowers];
    if (layers.length === 1)
      return [{ type: 'bind', source: this.upper, target: '', options: ['ro', 'rbind'] }];
    return [{ type: 'overlay', source: 'overlay', target: '', options: [`lowerdir=${layers.join(':')}`] }];
  }

  /** A snapshot on top of this one. */
  child(folder: string): Snapshot {
    return new Snapshot(folder, [this.upper, ...this.lowers]);
  }

  look<T>(work: (merged: string) => T): T {
    const merged = join(this.folder, 'merged');
    const [{ type, source, options }] = this.mounts as [Mount];
    if (type === 'overlay') mount(source, merged, type, 0, options.join(','));
    else mount(source, merged, '', constants.MS_BIND, '');
    try {
      return work(merged);
    } finally {
      unmount(merged, 0);
    }
  }
}

/** A differ with the helpers that tests want, one for all tests of a file. */
export class TestDiffer {
  readonly differ: Differ;
  readonly folder: string;
  readonly #blob: string;

  constructor(options: Partial<DifferOptions> = {}) {
    const base = mkdtempSync(join(tmpdir(), 'moor-differ-'));
    this.folder = join(base, 'mounts');
    this.#blob = join(base, 'blob');
    mkdirSync(this.folder);
    this.differ = new Differ({ folder: this.folder, ...options });
    after(async () => {
      await this.differ.close();
      rmSync(base, { recursive: true });
    });
  }

  /** Unpacks an archive, or the file of that path. */
  async apply(archive: Buffer | string, mounts: readonly Mount[], signal?: AbortSignal): Promise<Applied> {
    const path = typeof archive === 'string' ? archive : this.#blob;
    if (typeof archive !== 'string') writeFileSync(path, archive);
    const layer: Descriptor = { mediaType: LAYER, digest: '', size: 0n, annotations: {} };
    return this.differ.apply(layer, mounts, { openBlob: () => Promise.resolve(openBlob(path)), signal });
  }

  async compare(
    left: readonly Mount[],
    right: readonly Mount[],
    mediaType = LAYER,
  ): Promise<{ blob: Buffer; result: Compared }> {
    const pieces: Uint8Array[] = [];
    const write = (piece: Buffer) => Promise.resolve(void pieces.push(piece));
    const result = await this.differ.compare(left, right, { mediaType, write });
    return { blob: Buffer.concat(pieces), result };
  }
}

export function openBlob(path: string): { fd: number; close(): void } {
  const fd = openSync(path, 'r');
  return { fd, close: () => closeSync(fd) };
}

/** An entry of an archive, a file of root's unless said otherwise. */
export function entryOf(name: ByteString, more: Partial<Entry> & { content?: string } = {}): Buffer {
  const { content = '', ...rest } = more;
  const data = Buffer.from(content);
  const mtime = { seconds: 1_600_000_000, nanos: 0 };
  const entry: Entry = {
    name,
    kind: 'file',
    mode: rest.kind === 'directory' ? 0o755 : 0o644,
    uid: 0,
    gid: 0,
    size: data.length,
    mtime,
    atime: mtime,
    linkName: '',
    major: 0,
    minor: 0,
    xattrs: NO_XATTRS,
    ...rest,
  };
  return Buffer.concat([encodeEntry(entry), data, paddingOf(data.length)]);
}

export function archiveOf(...entries: readonly Buffer[]): Buffer {
  return Buffer.concat([...entries, END_OF_ARCHIVE]);
}

/** What is mounted at or from below a folder, as this process sees it. */
export function mountsBelow(folder: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.includes(folder));
}

/** Runs a shell script, which must succeed. */
export function sh(script: string, cwd: string): string {
  const { status, stdout, stderr } = spawnSync('bash', ['-euc', script], { cwd, encoding: 'utf8' });
  if (status !== 0) throw new Error(`${script}: ${stderr}`);
  return stdout;
}
