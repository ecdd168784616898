import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { Collector } from '../gc/collector.ts';
import { leaseResource } from '../gc/records.ts';
import { parseNamespace } from '../identifiers.ts';
import { openLog } from '../log.ts';
import { LeaseStore } from '../metadata/leases.ts';
import { snapshotResource } from './gc-resource.ts';
import { Overlayfs } from './overlayfs.ts';
import { Stage, namespace } from './testing/stage.ts';

const elsewhere = parseNamespace('elsewhere');
const kept = { labels: { 'containerd.io/gc.root': 'x' } };

test('snapshots that nothing needs are collected with their files, children first', async () => {
  await using stage = new Stage('overlayfs', (root) => Overlayfs.open(root));
  const snapshotter = await stage.open();
  const collector = new Collector(
    stage.database,
    [leaseResource, snapshotResource(snapshotter.tree, snapshotter)],
    openLog('fatal'),
  );
  const left = async (): Promise<string[]> => {
    await collector.collect();
    const names = snapshotter.list(namespace).map((info) => info.name);
    assert.equal(readdirSync(stage.root).length, names.length + snapshotter.list(elsewhere).length);
    return names;
  };
  const layer = async (name: string, parent: string, creation = {}): Promise<void> => {
    await snapshotter.prepare(namespace, `${name}-active`, parent, kept);
    await snapshotter.commit(namespace, name, `${name}-active`, creation);
  };
  await layer('one', '', kept);
  await layer('two', 'one', kept);
  await layer('three', 'two');
  await snapshotter.view(namespace, 'view', 'three');
  await snapshotter.prepare(elsewhere, 'one', '', kept);
  stage.published.length = 0;
  assert.deepEqual(await left(), ['one', 'two']);
  assert.deepEqual(stage.published, [
    { namespace, topic: '/snapshot/remove', event: { key: 'view', snapshotter: 'overlayfs' } },
    { namespace, topic: '/snapshot/remove', event: { key: 'three', snapshotter: 'overlayfs' } },
  ]);

  await layer('three', 'two', kept);
  await snapshotter.update(namespace, { ...snapshotter.stat(namespace, 'one'), labels: {} });
  await snapshotter.update(namespace, { ...snapshotter.stat(namespace, 'two'), labels: {} });
  assert.deepEqual(await left(), ['one', 'three', 'two'], 'a parent is needed by its child');

  const leases = new LeaseStore(stage.database);
  await leases.create(namespace, 'lease', {});
  await snapshotter.update(namespace, { ...snapshotter.stat(namespace, 'three'), labels: {} });
  await snapshotter.prepare(namespace, 'box', 'two', { lease: 'lease' });
  assert.deepEqual(await left(), ['box', 'one', 'two']);
  await leases.delete(namespace, 'lease');
  assert.deepEqual(await left(), []);
  assert.equal(snapshotter.list(elsewhere).length, 1);
});
