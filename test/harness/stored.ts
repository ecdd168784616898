/** What a daemon stores of images: on its disk, and as its clients see it. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ContentDefinition } from '../../proto/gen/containerd/services/content.ts';
import { Kind, SnapshotsDefinition } from '../../proto/gen/containerd/services/snapshots.ts';
import type { Ctr } from './ctr.ts';
import type { Daemon } from './daemon.ts';
import { list } from './leftovers.ts';
import { eventually } from './wait.ts';

/** Blobs, ingests and the files of snapshots there are, as paths below the daemon's root. */
export function storedOn(daemon: Daemon): string[] {
  const below = (folder: string): string[] =>
    list(join(daemon.root, folder)).map((name) => `${folder}/${name}`);
  return [
    ...below('content/blobs').flatMap(below),
    ...below('content/ingest'),
    ...below('snapshots').flatMap(below),
  ];
}

/** The digests that `ctr content ls` shows. */
export async function digestsOf(ctr: Ctr): Promise<string[]> {
  return words(await ctr.ok('content', 'ls', '-q'));
}

/** By its ref, how many bytes there are of everything that is being written. */
export async function ingestsOf(daemon: Daemon, { namespace }: Ctr): Promise<Map<string, number>> {
  using connection = daemon.connect();
  const content = connection.service(ContentDefinition, namespace);
  const { statuses } = await content.listStatuses({});
  return new Map(statuses.map(({ ref, offset }) => [ref, Number(offset)]));
}

/** Gives up what is being written, which would be kept for a day for another pull to go on with. */
export async function giveUpIngests(daemon: Daemon, { namespace }: Ctr): Promise<void> {
  using connection = daemon.connect();
  const content = connection.service(ContentDefinition, namespace);
  for (const { ref } of (await content.listStatuses({})).statuses) await content.abort({ ref });
}

/** The ids of the leases there are. */
export async function leasesOf(ctr: Ctr): Promise<string[]> {
  return words(await ctr.ok('leases', 'ls', '-q'));
}

/** Nothing that can be seen is there in part: blobs are what their names say, images have all of theirs, snapshots their parents. */
export async function expectWhole(daemon: Daemon, ctr: Ctr): Promise<void> {
  for (const digest of await digestsOf(ctr)) {
    const path = join(daemon.root, 'content/blobs', digest.replace(':', '/'));
    if (!existsSync(path)) {
      const listed = await digestsOf(ctr);
      assert.ok(!listed.includes(digest), `${digest} is listed, and its file has not just been collected`);
      continue;
    }
    const bytes = readFileSync(path);
    assert.equal(`sha256:${createHash('sha256').update(bytes).digest('hex')}`, digest);
  }
  const images = (await ctr.ok('images', 'check')).trimEnd().split('\n').slice(1);
  for (const line of images) assert.match(line, / complete \((\d+)\/\1\) /);
  using connection = daemon.connect();
  const snapshots = connection.service(SnapshotsDefinition, ctr.namespace);
  const committed = new Set(['']);
  const parents: string[] = [];
  for await (const { info } of snapshots.list({ snapshotter: 'overlayfs' })) {
    for (const { kind, name = '', parent = '' } of info ?? []) {
      parents.push(parent);
      if (kind === Kind.COMMITTED) committed.add(name);
    }
  }
  for (const parent of parents)
    assert.ok(committed.has(parent), `snapshot ${parent} is there for its children`);
}

/** Removes every image as a person would; then nothing is left in the namespace, and of images nothing on the disk. */
export async function expectNothingStored(daemon: Daemon, ctr: Ctr): Promise<void> {
  const images = words(await ctr.ok('images', 'ls', '-q'));
  // Removing a lease is what makes for a collection when there is no image.
  await ctr.ok('leases', 'create', '--id', 'last');
  if (images.length > 0) await ctr.ok('images', 'rm', '--sync', ...images);
  await ctr.ok('leases', 'rm', '--sync', 'last');
  assert.deepEqual(await leasesOf(ctr), []);
  assert.deepEqual(await digestsOf(ctr), []);
  assert.deepEqual([...(await ingestsOf(daemon, ctr)).keys()], []);
  assert.deepEqual((await ctr.ok('snapshots', 'ls')).trimEnd().split('\n').slice(1), []);
  await eventually('nothing is left on the disk', () => {
    const left = storedOn(daemon);
    if (left.length > 0) throw new Error(left.join(' '));
    return true;
  });
}

function words(text: string): string[] {
  return text.split(/\s+/).filter((word) => word !== '');
}
