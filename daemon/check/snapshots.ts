/** Snapshots' records against their folders and against one another. */
import { readFileSync, readdirSync } from 'node:fs';
import { removeTree } from '../../native/native.ts';
import { Container } from '../../proto/gen/containerd/services/containers.ts';
import { Kind as SnapshotKind } from '../../proto/gen/containerd/services/snapshots.ts';
import { Snapshot } from '../../proto/gen/moor/metadata/snapshot.ts';
import type { Namespace } from '../identifiers.ts';
import type { Reader } from '../metadata/database.ts';
import { Kind, snapshotKind } from '../metadata/schema.ts';
import type { SnapshotterName } from '../snapshots/snapshotters.ts';
import type { Finding } from './finding.ts';

interface Recorded {
  readonly namespace: Namespace;
  readonly name: string;
  readonly snapshot: Snapshot;
}

/**
 * @param snapshotter one of those that keep their files here
 * @param root where its files are
 */
export function checkSnapshots(
  reader: Reader,
  namespaces: readonly Namespace[],
  snapshotter: SnapshotterName,
  root: string,
): { findings: Finding[]; snapshots: number } {
  const kind = snapshotKind(snapshotter);
  const recorded = namespaces.flatMap((namespace) =>
    Array.from(reader.list([namespace, kind], Snapshot), ({ id: name, value: snapshot }): Recorded => {
      return { namespace, name, snapshot };
    }),
  );
  const folders = new Set(foldersIn(root));
  const findings = recorded.flatMap((each) => mistakesOf(each, recorded, snapshotter, folders, root));
  for (const { snapshot } of recorded) folders.delete(snapshot.id);
  for (const id of folders) {
    const path = `${root}/${id}`;
    const object = `snapshot folder ${path}`;
    if (isMounted(path)) {
      const problem = 'no record names it, and it is part of a mount: something runs on it';
      findings.push({ object, problem, kind: 'leftover' });
      continue;
    }
    // The daemon knows how to remove a subvolume, and does so at its start.
    const repair =
      snapshotter === 'btrfs' ? undefined : { done: 'it has been removed', run: () => removeTree(path) };
    findings.push({ object, problem: 'no record names it', kind: 'leftover', repair });
  }
  return { findings, snapshots: recorded.length };
}

function mistakesOf(
  { namespace, name, snapshot }: Recorded,
  all: readonly Recorded[],
  snapshotter: SnapshotterName,
  folders: ReadonlySet<number>,
  root: string,
): Finding[] {
  const object = `snapshot ${name} of ${snapshotter} in ${namespace}`;
  const { id, info, ancestors } = snapshot;
  if (info === undefined) return [{ object, problem: 'its record has no name', kind: 'damaged' }];
  const findings: Finding[] = [];
  const twin = all.find((other) => other.snapshot.id === id && other.snapshot !== snapshot);
  if (twin !== undefined)
    findings.push({ object, problem: `${twin.name} has the same files (${id})`, kind: 'damaged' });
  const hasFolder = snapshotter !== 'native' || info.kind !== SnapshotKind.VIEW || ancestors.length === 0;
  if (hasFolder && !folders.has(id)) {
    const advice =
      'remove what is made on it and pull its image again; the daemon forgets it at its start when nothing is';
    findings.push({ object, problem: `its files ${root}/${id} are gone`, kind: 'missing', advice });
  }
  const lost = ancestors.filter(
    (ancestor) =>
      !all.some(
        (other) =>
          other.namespace === namespace &&
          other.snapshot.id === ancestor &&
          other.snapshot.info?.kind === SnapshotKind.COMMITTED,
      ),
  );
  if (lost.length > 0)
    findings.push({
      object,
      problem: `it is made on ${lost.join(', ')}, of which there is no record`,
      kind: 'missing',
    });
  return findings;
}

/** Containers whose file system is gone. */
export function checkContainers(
  reader: Reader,
  namespaces: readonly Namespace[],
  snapshotters: readonly string[],
): { findings: Finding[]; containers: number } {
  const findings: Finding[] = [];
  let containers = 0;
  for (const namespace of namespaces) {
    for (const { id, value } of reader.list([namespace, Kind.Container], Container)) {
      containers += 1;
      const { snapshotter, snapshotKey } = value;
      if (!snapshotters.includes(snapshotter) || snapshotKey === '') continue;
      if (reader.has([namespace, snapshotKind(snapshotter), snapshotKey])) continue;
      const problem = `its snapshot ${snapshotKey} of ${snapshotter} is not there`;
      findings.push({ object: `container ${id} in ${namespace}`, problem, kind: 'missing' });
    }
  }
  return { findings, containers };
}

function foldersIn(root: string): number[] {
  try {
    return readdirSync(root)
      .filter((name) => /^[1-9]\d{0,9}$/.test(name))
      .map(Number);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

/** Whether a mount of this mount namespace or its options name the folder. */
function isMounted(path: string): boolean {
  const pattern = new RegExp(`${path.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}(?:[/:, \\n]|$)`);
  return pattern.test(readFileSync('/proc/self/mountinfo', 'utf8'));
}
