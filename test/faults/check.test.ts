/** `moord check`: what a careless hand or a bad disk did to what is kept is found and named, and what can be put right is. */
import assert from 'node:assert/strict';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { it } from 'node:test';
import { open } from 'lmdb';
import { blobsOnDisk } from '../harness/storage.ts';
import type { Daemon } from '../harness/daemon.ts';
import { type MadeImage, busyboxImage, ociArchive } from '../harness/image.ts';
import { moord } from '../harness/moord.ts';
import { suite } from '../harness/peers.ts';
import { alive } from '../harness/processes.ts';
import { describe } from '../harness/program.ts';
import { eventually } from '../harness/wait.ts';

interface Report {
  readonly daemon: string | null;
  readonly counts: { readonly [what: string]: number };
  readonly findings: readonly {
    readonly object: string;
    readonly problem: string;
    readonly kind: string;
    readonly advice?: string;
    readonly outcome: string;
  }[];
}

const name = 'd.test/harbour/ship:1';

async function checkOf(daemon: Daemon, ...flags: string[]): Promise<{ code: number; report: Report }> {
  const outcome = await moord(daemon, 'check', '--json', ...flags);
  assert.ok(outcome.code === 0 || outcome.code === 2, describe(outcome));
  return { code: outcome.code, report: JSON.parse(outcome.stdout) as Report };
}

/** The findings that speak of it, as `kind: problem`. */
function about({ findings }: Report, object: string): string[] {
  return findings
    .filter((each) => each.object.includes(object))
    .map(({ kind, problem }) => `${kind}: ${problem}`);
}

const storeFile = (daemon: Daemon): string => join(daemon.root, 'metadata/data.mdb');

/** Overwrites the leaf that has a text. */
function damageLeaf(file: string, text: string): number {
  const bytes = readFileSync(file);
  for (let page = 2; page < bytes.length / 4096; page += 1) {
    const at = bytes.subarray(page * 4096, (page + 1) * 4096);
    if (at.readUInt16LE(18) !== 2 || !at.includes(text)) continue;
    // Pages that are not in use any more have it as well.
    at.fill(0xa5, 16);
  }
  writeFileSync(file, bytes);
  return bytes.length;
}

suite('moord check', { peers: ['moord'] }, (rig) => {
  const blob = ({ root }: Daemon, digest: string): string =>
    join(root, 'content/blobs', digest.replace(':', '/'));
  let image: MadeImage;
  let archive: string;

  it('finds nothing wrong with a daemon at work, and repairs nothing under it', async () => {
    const { daemon, ctr } = rig;
    image = await busyboxImage({ above: [{ 'cargo/list': 'rum\n' }] });
    archive = ociArchive(join(daemon.directory, 'ship.tar'), [[name], image]);
    await ctr.ok('images', 'import', archive);
    await ctr.ok('run', '-d', '--null-io', name, 'keeper', 'sleep', '1000');
    const held = image.layers.length + 2;
    await eventually('the archive’s index is collected', () => blobsOnDisk(daemon).length === held);
    const { code, report } = await checkOf(daemon);
    assert.deepEqual(report.findings, []);
    assert.equal(code, 0);
    assert.match(report.daemon ?? '', new RegExp(`pid ${daemon.pid}\\b`));
    const { blobs, containers, bundles } = report.counts;
    assert.deepEqual([blobs, containers, bundles], [held, 1, 1]);
    const refused = await moord(daemon, 'check', '--repair');
    assert.equal(refused.code, 1, describe(refused));
    assert.match(refused.stderr, /in use by another daemon \(pid \d+\): stop that before a repair/);
  });

  it('finds what is wrong with blobs, snapshots, ingests, bundles and sockets, and puts right what can be', async () => {
    const { daemon, ctr } = rig;
    const task = await ctr.task('keeper');
    await daemon.terminate();
    const layer = blob(daemon, image.layers[0]!.digest);
    const bytes = readFileSync(layer);
    bytes[bytes.length >> 1]! ^= 1;
    writeFileSync(layer, bytes);
    rmSync(blob(daemon, image.config.digest));
    const orphan = blob(daemon, `sha256:${'a'.repeat(64)}`);
    writeFileSync(orphan, 'nobody’s');
    const folder = join(daemon.root, 'snapshots/overlayfs/4711');
    mkdirSync(join(folder, 'fs'), { recursive: true });
    const ingest = join(daemon.root, 'content/ingest', 'b'.repeat(64));
    mkdirSync(ingest);
    writeFileSync(join(ingest, 'data'), 'half');
    const remains = join(daemon.bundle(ctr.namespace, '.gone.00c0ffee'));
    mkdirSync(remains);
    const socket = join(daemon.state, 's', 'dead');
    writeFileSync(socket, '');

    const { code, report } = await checkOf(daemon);
    assert.equal(code, 2);
    assert.equal(report.daemon, null);
    assert.match(about(report, image.layers[0]!.digest).join(), /^damaged: its bytes are those of sha256:/);
    assert.match(about(report, image.config.digest).join(), /^missing: there is no file /);
    for (const object of [orphan.split('/').at(-1)!, folder, ingest, remains, socket])
      assert.match(about(report, object).join(), /^leftover: /, object);
    assert.equal(report.findings.length, 7, JSON.stringify(report.findings, undefined, 1));
    for (const { digest } of [image.layers[0]!, image.config]) {
      const found = report.findings.find(({ object }) => object === `blob ${digest}`);
      const advice = found?.advice ?? '';
      assert.ok(advice.includes(`\`moor -n ${ctr.namespace} images pull ${name}\``), advice);
    }
    for (const path of [layer, orphan, folder, ingest, remains, socket])
      assert.ok(existsSync(path), 'a check alone changes nothing');
    assert.equal(
      (await checkOf(daemon, '--quick')).report.findings.length,
      6,
      'not what only the bytes tell',
    );

    const repaired = await checkOf(daemon, '--repair');
    assert.equal(repaired.code, 2, 'what is missing has to be pulled');
    for (const { object, outcome } of repaired.report.findings)
      assert.equal(outcome, object.includes(image.config.digest) ? 'found' : 'repaired', object);
    for (const path of [layer, orphan, folder, ingest, remains, socket]) assert.ok(!existsSync(path), path);
    const left = await moord(daemon, 'check');
    assert.match(left.stdout, /2 wrong\n$/);

    // All but what was damaged is served meanwhile, and what brings it again mends it.
    await daemon.start();
    assert.deepEqual(await ctr.task('keeper'), task);
    assert.equal((await ctr.exec('keeper', ['cat', '/cargo/list'])).stdout, 'rum\n');
    await ctr.ok('images', 'import', archive);
    const mended = await checkOf(daemon);
    assert.deepEqual(mended.report.findings, []);
    assert.equal(mended.code, 0);
  });

  it('a blob with other bytes fails what reads it by its name, and the daemon serves the rest', async () => {
    const { daemon, ctr } = rig;
    const { digest } = image.layers[1]!;
    const path = blob(daemon, digest);
    const whole = readFileSync(path);
    await daemon.terminate();
    const bytes = Buffer.from(whole);
    bytes[bytes.length >> 1]! ^= 1;
    writeFileSync(path, bytes);
    await daemon.start();
    const unpacked = await ctr.runImage(name, 'anew', ['true'], ['--snapshotter', 'native']);
    assert.notEqual(unpacked.code, 0);
    assert.ok(unpacked.stderr.includes(digest), describe(unpacked));
    assert.equal(
      (await ctr.runImage(name, 'other', ['cat', '/cargo/list'])).stdout,
      'rum\n',
      'that is unpacked',
    );
    // The wrong size is known before the bytes are.
    truncateSync(path, 20);
    const got = await ctr.call(['content', 'get', digest]);
    assert.match(got.stderr, new RegExp(`blob ${digest} at ${path} has 20 of ${whole.length} bytes`));
    writeFileSync(path, whole);
    assert.equal((await checkOf(daemon)).code, 0);
  });

  it('a damaged page of the metadata: the daemon refuses it by name, and goes on with the rest after a repair', async () => {
    const { daemon, ctr } = rig;
    const task = await ctr.task('keeper');
    for (let index = 0; index < 60; index += 1)
      await ctr.ok('leases', 'create', '--id', `lease-${index}`, `note=${'x'.repeat(400)}`);
    await daemon.terminate();
    const copy = join(daemon.directory, 'sound.mdb');
    copyFileSync(storeFile(daemon), copy);
    damageLeaf(storeFile(daemon), 'lease-17');
    await assert.rejects(
      daemon.start(),
      /data\.mdb is damaged: page \d+: .*`moord check`.*a backup can take its place \(docs\/operations\.md\)/,
    );
    assert.ok(alive(task!.pid), 'the container runs on');
    const { code, report } = await checkOf(daemon);
    assert.equal(code, 2);
    assert.match(report.findings[0]!.object, /^page \d+ of .*\/metadata\/data\.mdb$/);
    assert.match(report.findings[0]!.advice ?? '', /\d+ records can be read, \d+ cannot/);
    const { report: repaired } = await checkOf(daemon, '--repair');
    assert.equal(repaired.findings[0]!.outcome, 'repaired');
    assert.deepEqual(
      readdirSync(daemon.root).filter((entry) => entry.startsWith('metadata')),
      ['metadata', 'metadata-damaged-1'],
    );
    await daemon.start();
    assert.deepEqual(await ctr.task('keeper'), task);
    assert.equal((await ctr.exec('keeper', ['cat', '/cargo/list'])).stdout, 'rum\n');
    const leases = await ctr.lines('leases', 'ls', '-q');
    assert.ok(leases.length > 0 && leases.length < 60 && !leases.includes('lease-17'), leases.join());
    for (const lease of leases) await ctr.ok('leases', 'rm', lease);
    assert.equal((await checkOf(daemon)).code, 0);
    rmSync(join(daemon.root, 'metadata-damaged-1'), { recursive: true });
  });

  it('a store that was cut short, and one whose record is garbled, are told from one another', async () => {
    const { daemon, ctr } = rig;
    await daemon.terminate();
    const whole = readFileSync(storeFile(daemon));
    truncateSync(storeFile(daemon), 5 * 4096);
    await assert.rejects(daemon.start(), /data\.mdb is damaged: page \d+: the file ends before it/);
    assert.match((await moord(daemon, 'check')).stdout, /the file ends before it/);
    writeFileSync(storeFile(daemon), whole);
    const store = open<Buffer, string[]>({ path: join(daemon.root, 'metadata'), encoding: 'binary' });
    await store.put([ctr.namespace, 'image', 'd.test/garbled:1'], Buffer.from([0x0a, 0xff, 0xff]));
    await store.close();
    const { report } = await checkOf(daemon);
    assert.match(
      about(report, `record ${ctr.namespace}/image/d.test/garbled:1`).join(),
      /^damaged: it cannot be read/,
    );
    await daemon.start();
    const listed = await ctr.call(['images', 'ls']);
    assert.ok(
      listed.stderr.includes(`${ctr.namespace}/image/d.test/garbled:1 of the metadata is damaged`),
      describe(listed),
    );
    assert.equal((await ctr.exec('keeper', ['cat', '/cargo/list'])).stdout, 'rum\n', 'the rest is served');
    await daemon.terminate();
    await checkOf(daemon, '--repair');
    await daemon.start();
    assert.match(await ctr.ok('images', 'ls', '-q'), new RegExp(name));
    await ctr.remove('keeper');
    assert.equal((await checkOf(daemon)).code, 0);
    assert.ok(blobsOnDisk(daemon).length > 0);
  });

  it('says why it cannot check', async () => {
    const nowhere = await moord(rig.daemon, '--root', join(rig.daemon.directory, 'nowhere'), 'check');
    assert.equal(nowhere.code, 1);
    assert.match(nowhere.stderr, /there is no metadata in .*nowhere\/metadata/);
  });

  it('a shim’s socket that somebody listens at is left alone', async () => {
    const { daemon } = rig;
    await daemon.terminate();
    const path = join(daemon.state, 's', 'live');
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(path, resolve));
    try {
      const { code, report } = await checkOf(daemon, '--repair');
      assert.equal(code, 0);
      assert.match(about(report, path).join(), /^note: its shim belongs to no bundle/);
    } finally {
      server.close();
    }
    await daemon.start();
  });
});
