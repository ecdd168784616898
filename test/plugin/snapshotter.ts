/**
 * A snapshotter in a process of its own: `snapshotter.ts SOCKET FOLDER`. It stacks folders by overlayfs, and keeps what it has in one
 * file. Files beside that one change how it behaves: `hang` makes it never answer Prepare, `half` makes it prepare and never say so, `lazy` makes it bring what a client is
 * about to unpack by itself.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Info, Kind, SnapshotsDefinition } from '../../proto/gen/containerd/services/snapshots.ts';
import type { Mount } from '../../proto/gen/containerd/types/mount.ts';
import { alreadyExists, failedPrecondition, notFound } from '../../ttrpc/errors.ts';
import { serve } from './server.ts';

const [, , socket = '', folder = ''] = process.argv;
const TARGET = 'containerd.io/snapshot.ref';

interface Entry {
  readonly id: number;
  readonly kind: Kind;
  readonly parent: string;
  readonly labels: { readonly [key: string]: string };
}

mkdirSync(folder, { recursive: true });
const file = join(folder, 'snapshots.json');
const entries = new Map<string, Entry>(
  existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as [string, Entry][]) : [],
);

function save(): void {
  writeFileSync(`${file}.new`, JSON.stringify([...entries]));
  renameSync(`${file}.new`, file);
}

function get(key: string): Entry {
  const entry = entries.get(key);
  if (entry === undefined) throw notFound(`plugin: snapshot ${key} does not exist`);
  return entry;
}

const filesOf = ({ id }: Entry): string => join(folder, String(id), 'fs');

function add(key: string, kind: Kind, parent: string, labels: Entry['labels']): Entry {
  if (entries.has(key)) throw alreadyExists(`plugin: snapshot ${key} exists`);
  if (parent !== '' && get(parent).kind !== Kind.COMMITTED) throw failedPrecondition(`plugin: ${parent}`);
  const id = Math.max(0, ...[...entries.values()].map((entry) => entry.id)) + 1;
  const entry = { id, kind, parent, labels };
  mkdirSync(filesOf(entry), { recursive: true });
  mkdirSync(join(folder, String(id), 'work'), { recursive: true });
  entries.set(key, entry);
  save();
  return entry;
}

function mountsOf(entry: Entry): Mount[] {
  const lower: string[] = [];
  for (let { parent } = entry; parent !== ''; { parent } = get(parent)) lower.push(filesOf(get(parent)));
  const isView = entry.kind === Kind.VIEW;
  const bind = (source: string) => [
    { type: 'bind', source, target: '', options: ['rbind', isView ? 'ro' : 'rw'] },
  ];
  if (lower.length === 0) return bind(filesOf(entry));
  if (isView && lower.length === 1) return bind(lower[0]!);
  const upper = [`upperdir=${filesOf(entry)}`, `workdir=${join(folder, String(entry.id), 'work')}`];
  const options = ['index=off', ...(isView ? [] : upper), `lowerdir=${lower.join(':')}`];
  return [{ type: 'overlay', source: 'overlay', target: '', options }];
}

async function create(
  kind: Kind,
  { key, parent, labels }: { key: string; parent: string; labels: Entry['labels'] },
): Promise<{ mounts: Mount[] }> {
  if (existsSync(join(folder, 'hang'))) await new Promise(() => undefined);
  const target = labels[TARGET];
  if (target !== undefined && existsSync(join(folder, 'lazy'))) {
    const layer = add(`lazy-${target}`, Kind.COMMITTED, parent, labels);
    writeFileSync(join(filesOf(layer), 'lazy'), target);
    throw alreadyExists(`plugin: target ${target} is there`);
  }
  const entry = add(key, kind, parent, labels);
  if (existsSync(join(folder, 'half'))) await new Promise(() => undefined);
  return { mounts: mountsOf(entry) };
}

function infoOf(name: string, { kind, parent, labels }: Entry): Partial<Info> {
  return { name, kind, parent, labels: { ...labels } };
}

serve(socket, SnapshotsDefinition, {
  prepare: (request) => create(Kind.ACTIVE, request),
  view: (request) => create(Kind.VIEW, request),
  mounts: async ({ key }) => ({ mounts: mountsOf(get(key)) }),
  async commit({ name, key, labels }) {
    const entry = get(key);
    if (entries.has(name)) throw alreadyExists(`plugin: snapshot ${name} exists`);
    entries.set(name, { ...entry, kind: Kind.COMMITTED, labels });
    entries.delete(key);
    save();
    return {};
  },
  async remove({ key }) {
    const entry = get(key);
    if ([...entries.values()].some(({ parent }) => parent === key))
      throw failedPrecondition(`plugin: snapshot ${key} has children`);
    entries.delete(key);
    save();
    rmSync(join(folder, String(entry.id)), { recursive: true, force: true });
    return {};
  },
  stat: async ({ key }) => ({ info: infoOf(key, get(key)) }),
  async update({ info }) {
    const entry = get(info!.name);
    entries.set(info!.name, { ...entry, labels: { ...entry.labels, ...info!.labels } });
    save();
    return { info: infoOf(info!.name, get(info!.name)) };
  },
  async *list() {
    yield { info: [...entries].map(([name, entry]) => infoOf(name, entry)) };
  },
  usage: async ({ key }) => ({ size: BigInt(get(key).id), inodes: 1n }),
});
