import type { SnapshotInfo, Snapshots } from '../../client/client.ts';
import { Failure } from '../failure.ts';
import { type SnapshotterFlags, snapshotterOf } from '../image/platforms.ts';
import { rfc3339 } from '../json.ts';
import { labelText, parseLabels } from '../labels.ts';
import type { Session } from '../session.ts';
import { binarySize } from '../size.ts';
import { type FormatOptions, print, printListing } from '../table.ts';

type Mount = Awaited<ReturnType<Snapshots['mounts']>>[number];

function of({ client }: Session, flags: SnapshotterFlags): Snapshots {
  return client.snapshots(snapshotterOf(flags));
}

function kindOf({ sdk }: Session, { kind }: SnapshotInfo): string {
  const name = sdk.kindName(kind).toLowerCase();
  return name.charAt(0).toUpperCase() + name.slice(1);
}

export async function list(
  session: Session,
  flags: SnapshotterFlags & FormatOptions,
  filters: string[],
): Promise<void> {
  const { sdk, call } = session;
  const entries = (await of(session, flags).list(filters, call)).map((info) => ({
    name: info.name,
    parent: info.parent,
    kind: kindOf(session, info),
    createdAt: sdk.dateOf(info.createdAt),
    updatedAt: sdk.dateOf(info.updatedAt),
    labels: info.labels,
  }));
  await printListing(
    {
      header: ['KEY', 'PARENT', 'KIND'],
      rows: entries.map(({ name, parent, kind }) => [name, parent, kind]),
      json: entries,
      spacing: [1, 1],
    },
    flags,
  );
}

/** With the names that ctr's output has. */
export async function info(session: Session, flags: SnapshotterFlags, key: string): Promise<void> {
  const found = await of(session, flags).stat(key, session.call);
  const { name, parent, labels, createdAt, updatedAt } = found;
  const shown = {
    Kind: kindOf(session, found),
    Name: name,
    ...(parent !== '' && { Parent: parent }),
    ...(Object.keys(labels).length > 0 && { Labels: sorted(labels) }),
    Created: rfc3339(createdAt),
    Updated: rfc3339(updatedAt),
  };
  console.log(JSON.stringify(shown, undefined, 4));
}

function sorted(labels: { readonly [key: string]: string }): object {
  return Object.fromEntries(Object.entries(labels).sort(([one], [other]) => (one < other ? -1 : 1)));
}

export interface UsageFlags extends SnapshotterFlags, FormatOptions {
  readonly b?: boolean;
}

export async function usage(session: Session, flags: UsageFlags, keys: string[]): Promise<void> {
  const { call } = session;
  const snapshots = of(session, flags);
  const wanted = keys.length > 0 ? keys : (await snapshots.list([], call)).map(({ name }) => name);
  const entries = [];
  for (const key of wanted) {
    const { bytes, inodes } = await snapshots.usage(key, call);
    entries.push({ key, size: Number(bytes), inodes: Number(inodes) });
  }
  await printListing(
    {
      header: ['KEY', 'SIZE', 'INODES'],
      rows: entries.map(({ key, size, inodes }) => [
        key,
        flags.b === true ? String(size) : binarySize(size),
        String(inodes),
      ]),
      json: entries,
      spacing: [1, 1],
    },
    flags,
  );
}

export async function tree(session: Session, flags: SnapshotterFlags): Promise<void> {
  const found = await of(session, flags).list([], session.call);
  const children = Map.groupBy(found, ({ parent }) => parent);
  const lines: string[] = [];
  const add = (parent: string, level: number): void => {
    for (const { name } of children.get(parent) ?? []) {
      lines.push(`${'  '.repeat(level)}${level > 0 ? '\\_' : ''} ${name}`);
      add(name, level + 1);
    }
  };
  add('', 0);
  print(lines);
}

export async function mounts(
  session: Session,
  flags: SnapshotterFlags,
  target: string,
  key: string,
): Promise<void> {
  printMounts(target, await of(session, flags).mounts(key, session.call));
}

export interface MountFlags extends SnapshotterFlags {
  readonly target?: string;
  readonly mounts?: boolean;
}

/** What is prepared by hand is kept until it is removed by hand. */
export async function make(
  session: Session,
  flags: MountFlags,
  verb: 'prepare' | 'view',
  key: string,
  parent: string | undefined,
): Promise<void> {
  const labels = verb === 'prepare' ? rootLabel() : {};
  const made = await of(session, flags)[verb](key, parent, { ...session.call, labels });
  if (flags.target !== undefined) printMounts(flags.target, made);
  if (flags.mounts === true) {
    const shown = made.map(({ type, source, target, options }) => ({
      Type: type,
      Source: source,
      ...(target !== '' && { Target: target }),
      Options: options,
    }));
    console.log(JSON.stringify(shown, undefined, 4));
  }
}

export function rootLabel(): { [key: string]: string } {
  return { 'containerd.io/gc.root': new Date().toISOString().replace(/\.\d+Z$/, 'Z') };
}

function printMounts(target: string, found: readonly Mount[]): void {
  print(
    found.map(({ type, source, options }) => `mount -t ${type} ${source} ${target} -o ${options.join(',')}`),
  );
}

export async function commit(
  session: Session,
  flags: SnapshotterFlags,
  key: string,
  active: string,
): Promise<void> {
  await of(session, flags).commit(key, active, { ...session.call, labels: rootLabel() });
}

export async function label(
  session: Session,
  flags: SnapshotterFlags,
  key: string,
  pairs: string[],
): Promise<void> {
  const { call } = session;
  const snapshots = of(session, flags);
  const labels =
    pairs.length === 0
      ? (await snapshots.stat(key, call)).labels
      : await snapshots.label(key, parseLabels(pairs), call);
  console.log(labelText(labels));
}

export async function remove(session: Session, flags: SnapshotterFlags, keys: string[]): Promise<void> {
  for (const key of keys) await of(session, flags).remove(key, session.call);
}

export async function unpack(session: Session, flags: SnapshotterFlags, wanted: string): Promise<void> {
  const { client, call } = session;
  const images = await client.images.list([], call);
  const image = images.find(({ name, target }) => target.digest === wanted || name === wanted);
  if (image === undefined)
    throw new Failure(`no image is called ${wanted}, or has that digest`, 'see moor images ls');
  const { digest, mediaType } = image.target;
  await client.transfers.unpack(image.name, { ...call, snapshotter: snapshotterOf(flags) });
  console.log(`unpacking ${digest} (${mediaType})...done`);
}
