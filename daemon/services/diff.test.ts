import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { gunzipSync, gzipSync } from 'node:zlib';
import { createHash } from 'node:crypto';
import type { DiffDefinition } from '../../proto/gen/containerd/services/diff.ts';
import { Code } from '../../ttrpc/errors.ts';
import type { CallContext, ServiceImplementation } from '../../ttrpc/service.ts';
import type { Digest } from '../content/digest.ts';
import { NamespacedContent } from '../content/namespaced-content.ts';
import { ContentStore } from '../content/store.ts';
import { Differ } from '../diff/differ.ts';
import { WalkingDiffer } from '../diff/walking.ts';
import { parseNamespace } from '../identifiers.ts';
import { MetadataStore } from '../metadata/store.ts';
import { diffService } from './diff.ts';

const TAR = 'application/vnd.oci.image.layer.v1.tar';
const namespace = parseNamespace('test');
const context: CallContext = {
  signal: new AbortController().signal,
  metadata: new Map([['containerd-namespace', ['test']]]),
};

let base: string;
let content: NamespacedContent;
let diff: ServiceImplementation<typeof DiffDefinition>;
const opened = new AsyncDisposableStack();

before(async () => {
  base = mkdtempSync(join(tmpdir(), 'moor-diff-service-'));
  opened.defer(() => rmSync(base, { recursive: true }));
  mkdirSync(join(base, 'mounts'));
  const metadata = await MetadataStore.open(join(base, 'metadata'));
  opened.defer(() => metadata.close());
  content = new NamespacedContent(metadata.database, await ContentStore.open(join(base, 'content')));
  opened.defer(() => content.close());
  const differ = new Differ({ folder: join(base, 'mounts') });
  opened.defer(() => differ.close());
  diff = diffService(new WalkingDiffer(differ, content)).implementation as unknown as typeof diff;
});
after(() => opened.disposeAsync());

function bind(name: string) {
  mkdirSync(join(base, name), { recursive: true });
  return [{ type: 'bind', source: join(base, name), target: '', options: ['rw', 'rbind'] }];
}

const digestOf = (data: Buffer) => `sha256:${createHash('sha256').update(data).digest('hex')}`;
const request = { mediaType: '', ref: '', labels: {}, sourceDateEpoch: undefined };

test('a layer in the content store is unpacked, and its diff id told', async () => {
  mkdirSync(join(base, 'files'));
  writeFileSync(join(base, 'files', 'hello'), 'world');
  const archive = execFileSync('tar', ['-c', '-C', join(base, 'files'), 'hello']);
  const blob = gzipSync(archive);
  const digest = await content.put(namespace, 'layer', blob);
  const layer = { mediaType: `${TAR}+gzip`, digest, size: BigInt(blob.length), annotations: {} };
  const answer = await diff.apply(
    { diff: layer, mounts: bind('applied'), payloads: {}, syncFs: true },
    context,
  );
  assert.deepEqual(answer.applied, {
    mediaType: TAR,
    digest: digestOf(archive),
    size: BigInt(archive.length),
  });
  assert.equal(readFileSync(join(base, 'applied', 'hello'), 'utf8'), 'world');
});

test('a layer that is not there, not named or no layer is refused', async () => {
  const apply = (layer: { mediaType: string; digest: string } | undefined) =>
    diff.apply(
      {
        diff: layer && { ...layer, size: 0n, annotations: {} },
        mounts: bind('none'),
        payloads: {},
        syncFs: false,
      },
      context,
    );
  await assert.rejects(apply(undefined), { code: Code.InvalidArgument });
  await assert.rejects(apply({ mediaType: TAR, digest: 'nonsense' }), { code: Code.InvalidArgument });
  await assert.rejects(apply({ mediaType: TAR, digest: digestOf(Buffer.from('?')) }), {
    code: Code.NotFound,
  });
  const digest = await content.put(namespace, 'config', Buffer.from('{}'));
  await assert.rejects(apply({ mediaType: 'application/json', digest }), { code: Code.Unimplemented });
});

test('a difference is committed to the content store with its diff id', async () => {
  const [left, right] = [bind('left'), bind('right')];
  writeFileSync(join(base, 'right', 'new'), 'x'.repeat(500_000));
  const labels = { 'example.com/x': 'y' };
  const { diff: layer } = await diff.diff({ ...request, left, right, labels, ref: 'mine' }, context);
  const blob = await content.read(namespace, layer!.digest as Digest, 1e6);
  assert.equal(layer!.mediaType, `${TAR}+gzip`);
  assert.equal(layer!.size, BigInt(blob.length));
  assert.equal(layer!.digest, digestOf(blob));
  const diffId = digestOf(gunzipSync(blob));
  assert.deepEqual(layer!.annotations, { 'containerd.io/uncompressed': diffId });
  assert.deepEqual(content.info(namespace, layer!.digest as Digest).labels, {
    ...labels,
    'containerd.io/uncompressed': diffId,
  });
  assert.deepEqual(await content.statuses(namespace), []);

  const again = await diff.diff({ ...request, left, right }, context);
  assert.deepEqual(again.diff, layer);
});

test('a layer that was there without its diff id gets it', async () => {
  const [left, right] = [bind('left'), bind('labelled')];
  writeFileSync(join(base, 'labelled', 'file'), '');
  const first = await diff.diff({ ...request, left, right }, context);
  const digest = first.diff!.digest as Digest;
  const blob = await content.read(namespace, digest, 1e6);
  await content.delete(namespace, digest);
  await content.put(namespace, 'pushed', blob);
  assert.deepEqual(content.info(namespace, digest).labels, {});
  await diff.diff({ ...request, left, right }, context);
  assert.deepEqual(content.info(namespace, digest).labels, first.diff!.annotations);
});

test('a difference that cannot be made leaves nothing in the content store', async () => {
  const before = content.list(namespace).length;
  const missing = [{ type: 'bind', source: join(base, 'no-such-folder'), target: '', options: ['rbind'] }];
  await assert.rejects(diff.diff({ ...request, left: [], right: missing }, context), {
    code: Code.FailedPrecondition,
    message: /mount bind .*no-such-folder \[rbind,ro\]: .*ENOENT/,
  });
  assert.deepEqual(await content.statuses(namespace), []);
  assert.equal(content.list(namespace).length, before);
});
