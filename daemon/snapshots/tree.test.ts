import assert from 'node:assert/strict';
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { Code } from '../../ttrpc/errors.ts';
import { parseNamespace } from '../identifiers.ts';
import { LeaseStore } from '../metadata/leases.ts';
import { NamespaceStore } from '../metadata/namespaces.ts';
import { Overlayfs } from './overlayfs.ts';
import { Kind } from './snapshotter.ts';
import { Stage, layer, namespace, refused } from './testing/stage.ts';

const elsewhere = parseNamespace('elsewhere');

describe('snapshots', () => {
  async function staged(act: (stage: Stage) => Promise<void>): Promise<void> {
    await using stage = new Stage('overlayfs', (root) => Overlayfs.open(root));
    await stage.open();
    await act(stage);
  }

  test('of one namespace are unknown in another, also as parents', () =>
    staged(async (stage) => {
      const { snapshotter } = stage;
      await layer(stage, 'one', '', () => undefined);
      assert.deepEqual(snapshotter.list(elsewhere), []);
      await refused(() => snapshotter.stat(elsewhere, 'one'), Code.NotFound, /one/);
      await refused(() => snapshotter.prepare(elsewhere, 'box', 'one'), Code.NotFound, /parent snapshot one/);
      await snapshotter.prepare(elsewhere, 'one', '');
      assert.notDeepEqual(await snapshotter.mounts(elsewhere, 'one'), []);
      const namespaces = new NamespaceStore(stage.database);
      await refused(
        () => namespaces.delete(elsewhere),
        Code.FailedPrecondition,
        /snapshots on "overlayfs" snapshotter/,
      );
      await snapshotter.remove(elsewhere, 'one');
      await namespaces.delete(elsewhere);
    }));

  test('that cannot be are refused with what is wrong', () =>
    staged(async (stage) => {
      const { snapshotter } = stage;
      await layer(stage, 'one', '', () => undefined);
      await snapshotter.prepare(namespace, 'box', 'one');
      await snapshotter.view(namespace, 'view', 'one');
      const prepare =
        (key: string, parent: string, labels = {}) =>
        () =>
          snapshotter.prepare(namespace, key, parent, { labels });
      await refused(prepare('', ''), Code.InvalidArgument, /must have a key/);
      await refused(prepare('x'.repeat(1025), ''), Code.InvalidArgument, /longer than 1024/);
      await refused(prepare('x', '', { a: 'b'.repeat(4096) }), Code.InvalidArgument, /maximum size/);
      await refused(prepare('box', 'one'), Code.AlreadyExists, /snapshot "box": already exists/);
      await refused(prepare('one', ''), Code.AlreadyExists, /snapshot "one": already exists/);
      await refused(prepare('x', 'none'), Code.NotFound, /parent snapshot none does not exist/);
      await refused(prepare('x', 'box'), Code.InvalidArgument, /"box" is not committed/);
      await refused(prepare('x', 'view'), Code.InvalidArgument, /"view" is not committed/);
      await refused(
        () => snapshotter.mounts(namespace, 'one'),
        Code.FailedPrecondition,
        /one not active or view/,
      );
      const commit = (name: string, key: string) => () => snapshotter.commit(namespace, name, key);
      await refused(commit('one', 'box'), Code.AlreadyExists, /"one"/);
      await refused(commit('two', 'view'), Code.FailedPrecondition, /"view" is not active/);
      await refused(commit('two', 'one'), Code.FailedPrecondition, /"one" is not active/);
      await refused(commit('two', 'none'), Code.NotFound, /none/);
      await refused(commit('', 'box'), Code.InvalidArgument, /key/);
      await snapshotter.cleanup();
      assert.equal(readdirSync(stage.root).length, 3, 'nothing of what was refused');
    }));

  test('whose target is there already are refused, so that nobody unpacks it twice', () =>
    staged(async (stage) => {
      await layer(stage, 'sha256:chain', '', () => undefined);
      const labels = { 'containerd.io/snapshot.ref': 'sha256:chain' };
      const prepare = () => stage.snapshotter.prepare(namespace, 'extract', '', { labels });
      await refused(prepare, Code.AlreadyExists, /target snapshot "sha256:chain": already exists/);
      await stage.snapshotter.remove(namespace, 'sha256:chain');
      await prepare();
      assert.equal(
        stage.snapshotter.stat(namespace, 'extract').labels['containerd.io/snapshot.ref'],
        'sha256:chain',
      );
    }));

  test('have labels: given at creation, replaced by a commit, changed one by one', () =>
    staged(async ({ snapshotter }) => {
      await snapshotter.prepare(namespace, 'active', '', { labels: { a: '1', b: '2', empty: '' } });
      const info = snapshotter.stat(namespace, 'active');
      assert.deepEqual(info.labels, { a: '1', b: '2' });
      assert.deepEqual([info.kind, info.parent], [Kind.ACTIVE, '']);
      const set = (labels: Record<string, string>, paths: string[]) =>
        snapshotter.update(namespace, { ...info, labels }, paths).then((updated) => updated.labels);
      assert.deepEqual(await set({ a: '3', b: '4' }, ['labels.a']), { a: '3', b: '2' });
      assert.deepEqual(await set({}, ['labels.a']), { b: '2' });
      assert.deepEqual(await set({ c: '5' }, []), { c: '5' });
      assert.deepEqual(await set({ d: '6' }, ['labels']), { d: '6' });
      await refused(
        () => set({}, ['parent']),
        Code.InvalidArgument,
        /cannot update "parent" field on snapshot "active"/,
      );
      await refused(() => set({ a: 'b'.repeat(4096) }, []), Code.InvalidArgument, /maximum size/);
      await snapshotter.commit(namespace, 'one', 'active', { labels: { e: '7' } });
      const committed = snapshotter.stat(namespace, 'one');
      assert.deepEqual(committed.labels, { e: '7' });
      assert.equal(committed.kind, Kind.COMMITTED);
      await refused(() => snapshotter.stat(namespace, 'active'), Code.NotFound, /active/);
    }));

  test('are selected by name, parent, kind and label', () =>
    staged(async (stage) => {
      const { snapshotter } = stage;
      await layer(stage, 'one', '', () => undefined);
      await snapshotter.prepare(namespace, 'box', 'one', { labels: { 'example.com/a': 'x' } });
      await snapshotter.view(namespace, 'view', 'one');
      const select = (...filters: string[]) => snapshotter.list(namespace, filters).map((info) => info.name);
      assert.deepEqual(select(), ['box', 'one', 'view']);
      assert.deepEqual(select('kind==committed'), ['one']);
      assert.deepEqual(select('kind==active', 'kind==view'), ['box', 'view']);
      assert.deepEqual(select('parent==one,kind!=view'), ['box']);
      assert.deepEqual(select('parent==""'), ['one']);
      assert.deepEqual(select('labels."example.com/a"==x'), ['box']);
      assert.deepEqual(select('name~=^.o'), ['box']);
      assert.throws(() => select('kind=='), { code: Code.InvalidArgument });
    }));

  test('are held by the lease of the call that creates them', () =>
    staged(async ({ snapshotter, database }) => {
      const leases = new LeaseStore(database);
      await leases.create(namespace, 'lease', {});
      const creation = { lease: 'lease' };
      const held = () => leases.resources(namespace, 'lease').map(({ type, id }) => `${type} ${id}`);
      await snapshotter.prepare(namespace, 'active', '', creation);
      assert.deepEqual(held(), ['snapshots/overlayfs active']);
      await snapshotter.commit(namespace, 'one', 'active', creation);
      assert.deepEqual(held(), ['snapshots/overlayfs one']);
      await snapshotter.view(namespace, 'view', 'one', creation);
      await snapshotter.remove(namespace, 'view', 'lease');
      assert.deepEqual(held(), ['snapshots/overlayfs one']);
      await refused(
        () => snapshotter.prepare(namespace, 'x', '', { lease: 'none' }),
        Code.NotFound,
        /lease "none"/,
      );
      await refused(() => snapshotter.stat(namespace, 'x'), Code.NotFound, /x/);
    }));

  test('raced for have one winner', () =>
    staged(async ({ snapshotter, root }) => {
      const race = await Promise.allSettled(
        Array.from({ length: 8 }, () => snapshotter.prepare(namespace, 'box', '')),
      );
      assert.equal(race.filter(({ status }) => status === 'fulfilled').length, 1);
      const commits = await Promise.allSettled(
        Array.from({ length: 8 }, (_, index) => snapshotter.commit(namespace, `name-${index}`, 'box')),
      );
      assert.equal(commits.filter(({ status }) => status === 'fulfilled').length, 1);
      const [parent] = snapshotter.list(namespace);
      const [removed, prepared] = await Promise.allSettled([
        snapshotter.remove(namespace, parent!.name),
        snapshotter.prepare(namespace, 'child', parent!.name),
      ]);
      assert.notEqual(removed.status, prepared.status, 'a parent is not removed under its child');
      await snapshotter.cleanup();
      assert.equal(readdirSync(root).length, snapshotter.list(namespace).length);
    }));

  test('of a hundred and twenty layers still mount', { timeout: 60_000 }, () =>
    staged(async (stage) => {
      for (let index = 1; index <= 120; index++) {
        const key = `layer-${index}`;
        const [mounted] = await stage.snapshotter.prepare(
          namespace,
          `active-${index}`,
          index === 1 ? '' : `layer-${index - 1}`,
        );
        const upper = mounted!.options
          .find((option) => option.startsWith('upperdir='))
          ?.slice('upperdir='.length);
        writeFileSync(join(upper ?? mounted!.source, key), '');
        await stage.snapshotter.commit(namespace, key, `active-${index}`);
      }
      const mounts = await stage.snapshotter.prepare(namespace, 'box', 'layer-120');
      const { length } = mounts[0]!.options.join(',');
      assert.ok(length > 4096, `options of ${length} bytes fit as they are`);
      await stage.within(mounts, (path) => assert.equal(readdirSync(path).length, 120));
    }),
  );
});
