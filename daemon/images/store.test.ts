import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { ImageUpdate } from '../../proto/gen/containerd/events/image.ts';
import { Code, isCode } from '../../ttrpc/errors.ts';
import { parseNamespace } from '../identifiers.ts';
import { MetadataStore } from '../metadata/store.ts';
import { type Image, ImageStore } from './store.ts';

const ns = parseNamespace('here');
const digest = `sha256:${'a'.repeat(64)}`;
const target = (changes: Partial<NonNullable<Image['target']>> = {}) => ({
  mediaType: 'application/vnd.oci.image.index.v1+json',
  digest,
  size: 7n,
  annotations: {},
  ...changes,
});
const refused = (code: Code, text: RegExp) => (error: unknown) =>
  isCode(error, code) && text.test(error.message);

async function open(t: TestContext) {
  const directory = mkdtempSync(join(tmpdir(), 'moor-images-'));
  const metadata = await MetadataStore.open(directory);
  t.after(async () => {
    await metadata.close();
    rmSync(directory, { recursive: true });
  });
  const topics: string[] = [];
  const images = new ImageStore(metadata.database, {
    publish: (namespace, topic, event) => {
      const detail = topic === '/images/update' ? JSON.stringify(ImageUpdate.decode(event.value).labels) : '';
      topics.push(`${namespace} ${topic}${detail}`);
    },
  });
  return { images, metadata, topics };
}

test('an image is made, found by filters, changed and deleted, with an event each time', async (t) => {
  const { images, metadata, topics } = await open(t);
  await metadata.leases.create(ns, 'l', {});
  const created = await images.create(
    ns,
    { name: 'a:1', labels: { tier: 'db', none: '' }, target: target() },
    'l',
  );
  assert.deepEqual({ ...created.labels }, { tier: 'db' });
  assert.deepEqual(created.createdAt, created.updatedAt);
  assert.deepEqual(metadata.leases.resources(ns, 'l'), [{ type: 'images', id: 'a:1' }]);
  assert.deepEqual(images.get(ns, 'a:1').target, target());
  for (const filter of [
    'name==a:1',
    `target.digest==${digest}`,
    'target.mediatype~=index',
    'labels.tier==db',
  ])
    assert.equal(images.list(ns, [filter]).length, 1, filter);
  for (const filter of ['name==b', 'annotations.x', 'target', 'labels.none'])
    assert.equal(images.list(ns, [filter]).length, 0, filter);
  assert.deepEqual(images.list(parseNamespace('there')), []);

  await images.update(ns, { name: 'a:1', labels: { tier: 'web' }, target: target({ size: 8n }) }, [
    'labels.tier',
  ]);
  assert.equal(images.get(ns, 'a:1').target!.size, 7n);
  const whole = await images.update(ns, { name: 'a:1', labels: { x: 'y' }, target: target({ size: 8n }) });
  assert.equal(whole.target!.size, 8n);
  assert.deepEqual({ ...whole.labels }, { x: 'y' });
  assert.deepEqual(whole.createdAt, created.createdAt);
  const noted = { name: 'a:1', labels: {}, target: target({ annotations: { k: 'v', l: 'w' } }) };
  assert.deepEqual(
    { ...(await images.update(ns, noted, ['annotations.k'])).target!.annotations },
    { k: 'v' },
  );
  assert.deepEqual(
    { ...(await images.update(ns, noted, ['annotations'])).target!.annotations },
    { k: 'v', l: 'w' },
  );
  assert.deepEqual({ ...(await images.update(ns, noted, ['labels'])).labels }, {});

  const other = `sha256:${'b'.repeat(64)}`;
  await assert.rejects(images.delete(ns, 'a:1', 'l', other), refused(Code.NotFound, /has the target/));
  await images.delete(ns, 'a:1', 'l', images.get(ns, 'a:1').target!.digest);
  assert.deepEqual(metadata.leases.resources(ns, 'l'), []);
  assert.equal(topics[0], 'here /images/create');
  assert.equal(topics[1], 'here /images/update{"tier":"web"}');
  assert.equal(topics.at(-1), 'here /images/delete');
});

test('what makes no sense is refused with its code', async (t) => {
  const { images, topics } = await open(t);
  const image = { name: 'a', labels: {}, target: target() };
  await images.create(ns, image);
  await assert.rejects(images.create(ns, image), refused(Code.AlreadyExists, /image "a": already exists/));
  await assert.rejects(images.create(ns, { ...image, name: '' }), refused(Code.InvalidArgument, /empty/));
  await assert.rejects(
    images.create(ns, { ...image, name: 'x'.repeat(2000) }),
    refused(Code.InvalidArgument, /longer/),
  );
  for (const [wrong, text] of [
    [target({ digest: 'nope' }), /Target.Digest/],
    [target({ size: 0n }), /Target.Size/],
    [target({ mediaType: '' }), /Target.MediaType/],
    [undefined, /Target.Digest/],
  ] as const)
    await assert.rejects(
      images.create(ns, { ...image, name: 'b', target: wrong }),
      refused(Code.InvalidArgument, text),
    );
  await assert.rejects(
    images.update(ns, image, ['name']),
    refused(Code.InvalidArgument, /cannot update "name"/),
  );
  await assert.rejects(images.update(ns, { ...image, name: 'none' }), refused(Code.NotFound, /image "none"/));
  await assert.rejects(images.delete(ns, 'none'), refused(Code.NotFound, /image "none": not found/));
  await assert.rejects(
    images.create(ns, { ...image, name: 'c' }, 'gone'),
    refused(Code.NotFound, /lease "gone"/),
  );
  assert.throws(() => images.get(ns, 'x'.repeat(5000)), refused(Code.NotFound, /not found/));
  assert.deepEqual(topics, ['here /images/create']);
});
