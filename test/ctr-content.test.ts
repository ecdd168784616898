/** `ctr content …`, `ctr images …` and `ctr leases …` as far as they need no snapshots, as on containerd. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { suite } from './harness/peers.ts';
import { blobsOnDisk } from './harness/storage.ts';
import { eventually } from './harness/wait.ts';

const digestOf = (bytes: Buffer | string): string =>
  `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

/** An OCI archive of one image whose layer is random bytes: nobody unpacks it. */
function archive(directory: string, name: string): { file: string; manifest: string; blobs: string[] } {
  const oci = join(directory, 'oci');
  mkdirSync(join(oci, 'blobs/sha256'), { recursive: true });
  const blobs: string[] = [];
  const put = (bytes: Buffer | string, mediaType: string) => {
    const digest = digestOf(bytes);
    writeFileSync(join(oci, 'blobs/sha256', digest.slice(7)), bytes);
    blobs.push(digest);
    return { mediaType, digest, size: bytes.length };
  };
  const layer = put(randomBytes(100_000), 'application/vnd.oci.image.layer.v1.tar');
  const config = put(
    JSON.stringify({
      architecture: 'amd64',
      os: 'linux',
      rootfs: { type: 'layers', diff_ids: [layer.digest] },
    }),
    'application/vnd.oci.image.config.v1+json',
  );
  const manifest = put(
    JSON.stringify({ schemaVersion: 2, config, layers: [layer] }),
    'application/vnd.oci.image.manifest.v1+json',
  );
  const annotations = { 'io.containerd.image.name': name };
  writeFileSync(
    join(oci, 'index.json'),
    JSON.stringify({ schemaVersion: 2, manifests: [{ ...manifest, annotations }] }),
  );
  writeFileSync(join(oci, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }));
  const file = join(directory, 'image.tar');
  execFileSync('tar', ['-cf', file, '-C', oci, 'index.json', 'oci-layout', 'blobs']);
  return { file, manifest: manifest.digest, blobs };
}

suite('ctr content and images', {}, (rig) => {
  /** `ctr content ingest`, whatever its exit code. */
  const ingest = async (ref: string, bytes: Buffer | string, ...flags: string[]) => {
    const file = join(rig.daemon.directory, 'bytes');
    writeFileSync(file, bytes);
    const stdin = openSync(file, 'r');
    const child = rig.ctr.spawn(['content', 'ingest', ...flags, ref], [stdin, 'ignore', 'pipe']);
    closeSync(stdin);
    let stderr = '';
    child.stderr!.on('data', (data: Buffer) => (stderr += data.toString()));
    const [code] = (await once(child, 'close')) as [number];
    return { code, stderr };
  };
  const digests = () => rig.ctr.digests();
  const onDisk = (): string[] => blobsOnDisk(rig.daemon);
  const refused = async (args: string[], message: RegExp): Promise<void> => {
    const outcome = await rig.ctr.call(args);
    assert.equal(outcome.code, 1);
    assert.match(outcome.stderr, message);
  };

  it('ingest, ls, get, label and rm', async () => {
    // Nothing but a label holds what is ingested without a lease, and daemons collect garbage soon after their start.
    await rig.ctr.ok('leases', 'create', '--id', 'first');
    await rig.ctr.ok('leases', 'rm', '--sync', 'first');
    const bytes = randomBytes(3_000_000);
    const digest = digestOf(bytes);
    const flags = ['--expected-digest', digest, '--expected-size', String(bytes.length)];
    assert.deepEqual(await ingest('layer', bytes, ...flags), { code: 0, stderr: '' });
    assert.deepEqual(await digests(), [digest]);
    // As does the client that finds it there already.
    assert.deepEqual(await ingest('again', bytes, ...flags), { code: 0, stderr: '' });
    const file = join(rig.daemon.directory, 'got');
    await rig.ctr.save(file, 'content', 'get', digest);
    assert.ok(readFileSync(file).equals(bytes));
    await rig.ctr.ok('content', 'label', digest, 'a=b', 'containerd.io/gc.root=1');
    assert.match(await rig.ctr.ok('content', 'ls', 'labels.a==b'), new RegExp(`${digest}.*a=b`));
    await rig.ctr.ok('content', 'label', digest, 'a=');
    assert.equal((await rig.ctr.ok('content', 'ls', '-q', 'labels.a')).trim(), '');
    assert.match(await rig.ctr.ok('content', 'rm', digest), new RegExp(digest));
    assert.deepEqual(await digests(), []);
    await eventually('the bytes are gone', () => !onDisk().includes(digest));
    const none = digestOf('nothing');
    await refused(['content', 'get', none], new RegExp(`content digest ${none}: not found`));
  });

  it('a wrong digest or size is refused, and what was written is no content', async () => {
    const wrong = await ingest('bad', 'bytes', '--expected-digest', digestOf('other'));
    assert.equal(wrong.code, 1);
    assert.match(wrong.stderr, /unexpected commit digest .*: failed precondition/);
    const short = await ingest('bad2', 'bytes', '--expected-size', '3');
    assert.equal(short.code, 1);
    assert.match(short.stderr, /failed size validation: 5 != 3: failed precondition/);
    assert.deepEqual(await digests(), []);
  });

  it('images: import, ls, tag, label, export, and a synchronous rm that frees every blob', async () => {
    const { file, manifest, blobs } = archive(rig.daemon.directory, 'example.com/test:1');
    await rig.ctr.ok('images', 'import', '--no-unpack', file);
    const ls = await rig.ctr.ok('images', 'ls');
    assert.match(
      ls,
      new RegExp(`^example.com/test:1 +application/vnd.oci.image.manifest.v1\\+json +${manifest}`, 'm'),
    );
    assert.match(await rig.ctr.ok('images', 'check'), /example.com\/test:1 .* complete \(2\/2\)/);
    for (const blob of blobs) assert.ok((await digests()).includes(blob), blob);

    await rig.ctr.ok('images', 'tag', 'example.com/test:1', 'example.com/test:2');
    await refused(['images', 'tag', 'example.com/test:1', 'example.com/test:2'], /already exists/);
    await rig.ctr.ok('images', 'label', 'example.com/test:2', 'tier=db');
    assert.equal(await rig.ctr.ok('images', 'ls', '-q', 'labels.tier==db'), 'example.com/test:2\n');
    const copy = join(rig.daemon.directory, 'copy.tar');
    await rig.ctr.ok('images', 'export', copy, 'example.com/test:2');
    const names = execFileSync('tar', ['-tf', copy], { encoding: 'utf8' });
    for (const blob of blobs) assert.match(names, new RegExp(`blobs/sha256/${blob.slice(7)}`));

    await rig.ctr.ok('images', 'rm', '--sync', 'example.com/test:1');
    for (const blob of blobs) assert.ok((await digests()).includes(blob), blob);
    await rig.ctr.ok('images', 'rm', '--sync', 'example.com/test:2');
    assert.deepEqual(await digests(), []);
    assert.deepEqual(onDisk(), []);
  });

  it('without --sync the blobs go by themselves; a namespace with images is not deleted', async () => {
    const { file, blobs } = archive(rig.daemon.directory, 'example.com/later:1');
    await rig.ctr.ok('images', 'import', '--no-unpack', file);
    await refused(['namespaces', 'rm', rig.ctr.namespace], /must be empty.*failed precondition/);
    await rig.ctr.ok('images', 'rm', 'example.com/later:1');
    await eventually('nothing is left', async () => (await digests()).length === 0 && onDisk().length === 0);
    assert.equal(blobs.length >= 3, true);
  });

  it('one namespace does not free what another has', async () => {
    const other = rig.daemon.ctr();
    const { file } = archive(rig.daemon.directory, 'example.com/both:1');
    await rig.ctr.ok('images', 'import', '--no-unpack', file);
    await other.ok('images', 'import', '--no-unpack', file);
    await rig.ctr.ok('images', 'rm', '--sync', 'example.com/both:1');
    assert.deepEqual(await digests(), []);
    assert.match(await other.ok('images', 'check'), /example.com\/both:1 .* complete \(2\/2\)/);
    await other.ok('images', 'rm', '--sync', 'example.com/both:1');
    assert.deepEqual(onDisk(), []);
  });

  it('leases: create, ls, rm', async () => {
    assert.equal(await rig.ctr.ok('leases', 'create', '--id', 'mine', 'a=b'), 'mine\n');
    assert.match(await rig.ctr.ok('leases', 'ls'), /^mine .*a=b/m);
    await refused(['leases', 'create', '--id', 'mine'], /lease "mine": already exists/);
    await rig.ctr.ok('leases', 'rm', '--sync', 'mine');
    await refused(['leases', 'rm', 'mine'], /lease "mine": not found/);
  });
});
