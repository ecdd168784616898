/** Images and archives that mean harm, sent to a running daemon: contained, refused with the reason, and nothing of them is kept. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { after, before, it } from 'node:test';
import { gzipSync } from 'node:zlib';
import { connect } from '../client/client.ts';
import { archiveOf, entryOf } from '../daemon/diff/fixture.test.ts';
import { OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST } from '../daemon/distribution/media-types.ts';
import { type Piece, archive, descriptorOf, jsonPiece, piece } from '../daemon/distribution/testing/image.ts';
import { TrickyRegistry } from '../daemon/distribution/testing/registries.ts';
import { VersionDefinition } from '../proto/gen/containerd/services/version.ts';
import { Code, toRpcError } from '../ttrpc/errors.ts';
import { type MadeImage, digestOf, makeImage, ociArchive } from './harness/image.ts';
import { expectNothingLeft, holdings } from './harness/leftovers.ts';
import { suite } from './harness/peers.ts';
import { describe } from './harness/program.ts';
import { failureOf } from './harness/rpc.ts';
import { expectNothingStored } from './harness/stored.ts';
import { pull } from './harness/transfer.ts';
import { soon } from './harness/wait.ts';

const MEGABYTE = 1 << 20;
const MAX_ENTRIES = 20_000;
/** Bytes that the daemon's memory may grow by; some twenty documents of several megabytes are read at once. */
const MAX_GROWTH = 400 * MEGABYTE;

const config = `
[plugins."io.containerd.differ.v1.walking"]
max_entries = ${MAX_ENTRIES}
max_ratio_from_bytes = ${64 * MEGABYTE}
`;

type Expected = readonly [code: Code, message: RegExp];
const invalid: Code = Code.InvalidArgument;

/** An image of a layer as it is, which the configuration gives another diff id if that is wanted. */
function imageOf(layer: Piece, diffId: string): MadeImage {
  const rootfs = { type: 'layers', diff_ids: [diffId] };
  const made = jsonPiece(OCI_CONFIG, {
    os: 'linux',
    architecture: 'amd64',
    config: {},
    rootfs,
    made: randomBytes(8).toString('hex'),
  });
  const document = {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: descriptorOf(made),
    layers: [descriptorOf(layer)],
  };
  return { manifest: jsonPiece(OCI_MANIFEST, document), config: made, layers: [layer], diffIds: [diffId] };
}

suite('images that mean harm', { peers: ['moord'], config }, (rig) => {
  let registry: TrickyRegistry;
  let count = 0;
  const before_ = new Map<string, string>();
  const canaries = () => join(rig.daemon.directory, 'canaries');

  /** Everything about the canaries that a layer might change. */
  const look = (): Map<string, string> =>
    new Map(
      ['', 'one', 'two'].map((name) => {
        const path = join(canaries(), name);
        const { mode, uid, mtimeMs, nlink, size } = statSync(path);
        const content = name === '' ? readdirSync(path).join() : readFileSync(path, 'utf8');
        return [name, JSON.stringify({ mode, uid, mtimeMs, nlink, size, content })];
      }),
    );

  before(async () => {
    registry = await TrickyRegistry.start();
    mkdirSync(canaries());
    for (const name of ['one', 'two']) writeFileSync(join(canaries(), name), 'alive');
    for (const [name, state] of look()) before_.set(name, state);
  });
  after(async () => {
    await registry[Symbol.asyncDispose]();
  });

  const publish = (image: MadeImage): string => {
    count += 1;
    registry.put(`h${count}`, 'x', image);
    return `${registry.host}/h${count}:x`;
  };

  const publishManifest = (manifest: Piece): string => {
    count += 1;
    registry.putManifest(`h${count}`, 'x', manifest);
    return `${registry.host}/h${count}:x`;
  };

  const refuses = async (what: string, name: string, [code, message]: Expected): Promise<void> => {
    const failure = await failureOf(pull(rig.daemon, rig.ctr.namespace, name, { timeout: 60_000 }));
    assert.match(failure.message, message, what);
    assert.equal(failure.code, code, `${what}: ${failure.message}`);
  };

  const nothingHappened = async (): Promise<void> => {
    assert.deepEqual(look(), before_);
    assert.ok(!existsSync('/etc/moor-was-here'));
    await expectNothingStored(rig.daemon, rig.ctr);
  };

  /** What the daemon's memory has been at most, in bytes. */
  const peak = (): number =>
    Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${rig.daemon.pid}/status`, 'utf8'))![1]) * 1024;

  /** The daemon answers others as long as the work goes on. */
  const answering = async <T>(work: Promise<T>): Promise<T> => {
    using connection = rig.daemon.connect();
    const state = { isDone: false };
    const ended = work.finally(() => (state.isDone = true)).catch(() => undefined);
    while (!state.isDone) {
      await soon('the daemon answers somebody else', connection.service(VersionDefinition).version({}), {
        within: 15_000,
      });
      await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 50))]);
    }
    return work;
  };

  it('layers that are refused', { timeout: 120_000 }, async () => {
    const before = holdings(rig.daemon);
    const memory = peak();
    const link = (linkName: string) => archiveOf(entryOf('l', { kind: 'link', linkName }));
    const zeros = gzipSync(Buffer.alloc(64 * MEGABYTE));
    const file = gzipSync(entryOf('zeros', { size: 4096 * MEGABYTE }));
    const good = archiveOf(entryOf('f', { content: 'x'.repeat(5000) }), entryOf('g'));
    const layers: { readonly [what: string]: readonly [Buffer, Expected] } = {
      '..': [archiveOf(entryOf('../../../../canaries/one')), [invalid, /its name leads out of the layer/]],
      'a hard link outwards': [
        link('../../../../canaries/one'),
        [invalid, /its name leads out of the layer/],
      ],
      'a hard link to the host': [
        link('/etc/passwd'),
        [invalid, /"l": it links to "etc\/passwd", which is not there/],
      ],
      'a name of 5,000 bytes': [
        archiveOf(entryOf('n'.repeat(5000))),
        [invalid, /a name of 5000 bytes is longer than 4096/],
      ],
      'very many files': [
        gzipSync(Buffer.alloc(512 * 1_000_000, entryOf('f')), { level: 1 }),
        [Code.ResourceExhausted, /the layer has more than 20000 entries/],
      ],
      'zeros without measure': [
        Buffer.concat([file, ...Array.from({ length: 64 }, () => zeros)]),
        [Code.ResourceExhausted, /unpacks to more than the \d+ that it may/],
      ],
      'a stream that is cut off': [
        gzipSync(good).subarray(0, -20),
        [invalid, /gzip stream is broken: unexpected end of file/],
      ],
      'no archive': [Buffer.from('#!/bin/sh\nrm -rf /\n'.repeat(100)), [invalid, /invalid layer archive/]],
    };
    const all = Object.entries(layers).map(([what, [bytes, expected]]) =>
      refuses(what, publish(imageOf(piece(`${OCI_LAYER}+gzip`, bytes), digestOf(bytes))), expected),
    );
    all.push(
      refuses('a wrong diff id', publish(imageOf(piece(OCI_LAYER, good), digestOf(Buffer.from('other')))), [
        Code.FailedPrecondition,
        /has the diff id sha256:.*, not sha256:/,
      ]),
      refuses('what is no layer', publish(imageOf(piece('application/json', good), digestOf(good))), [
        Code.Unimplemented,
        /layers of the media type "application\/json" cannot be unpacked/,
      ]),
    );
    await answering(Promise.all(all));
    await nothingHappened();
    assert.ok(peak() - memory < MAX_GROWTH, `the daemon has grown by ${(peak() - memory) / MEGABYTE} MiB`);
    await expectNothingLeft(rig.daemon, before, { except: /^descriptor (socket|pipe)|process .*differ/ });
  });

  it('layers that are contained', async () => {
    const outside = canaries();
    const links = [
      entryOf('absolute', { kind: 'symlink', linkName: outside }),
      entryOf('relative', { kind: 'symlink', linkName: '../../../../../canaries' }),
      entryOf('up', { kind: 'symlink', linkName: '../../../../../../../..' }),
    ];
    const harm = ['absolute', 'relative', `up${outside}`].flatMap((way) => [
      entryOf(`${way}/one`, { content: 'dead' }),
      entryOf(`${way}/.wh.two`),
      entryOf(`${way}/.wh..wh..opq`),
      entryOf(`${way}/three`, { kind: 'directory', mode: 0o777 }),
      entryOf('/etc/moor-was-here'),
    ]);
    const name = publish(await makeImage([archiveOf(...links, ...harm)]));
    await pull(rig.daemon, rig.ctr.namespace, name);
    assert.deepEqual(look(), before_);
    const above = publish(await makeImage([archiveOf(...links), archiveOf(...harm)]));
    await pull(rig.daemon, rig.ctr.namespace, above);
    // The same by ctr, which asks for each layer by itself.
    const file = ociArchive(join(rig.daemon.directory, 'contained.tar'), [
      ['h.test/contained:1'],
      await makeImage([archiveOf(...links, ...harm)]),
    ]);
    await rig.ctr.ok('images', 'import', file);
    await nothingHappened();
  });

  it('layers that ctr imports', async () => {
    const good = archiveOf(entryOf('f', { content: 'x'.repeat(5000) }));
    const cases = {
      'its name leads out of the layer': await makeImage([archiveOf(entryOf('../../canaries/one'))]),
      'a name of 5000 bytes is longer than 4096': await makeImage([archiveOf(entryOf('n'.repeat(5000)))]),
      'gzip stream is broken': imageOf(
        piece(`${OCI_LAYER}+gzip`, gzipSync(good).subarray(0, -20)),
        digestOf(good),
      ),
      'wrong diff id|mismatch': imageOf(piece(OCI_LAYER, good), digestOf(Buffer.from('other'))),
    };
    for (const [message, image] of Object.entries(cases)) {
      const file = ociArchive(join(rig.daemon.directory, 'hostile.tar'), [['h.test/hostile:1'], image]);
      const outcome = await rig.ctr.call(['images', 'import', file]);
      assert.equal(outcome.code, 1, describe(outcome));
      assert.match(outcome.stderr, new RegExp(message));
      await nothingHappened();
    }
  });

  it('manifests and configurations that are not what they should be', { timeout: 120_000 }, async () => {
    const memory = peak();
    const made = jsonPiece(OCI_CONFIG, {
      os: 'linux',
      architecture: 'amd64',
      rootfs: { type: 'layers', diff_ids: [] },
    });
    const layer = piece(OCI_LAYER, archiveOf());
    const manifest = (more: object) =>
      jsonPiece(OCI_MANIFEST, {
        schemaVersion: 2,
        mediaType: OCI_MANIFEST,
        config: descriptorOf(made),
        layers: [],
        ...more,
      });
    const index = (manifests: unknown) =>
      jsonPiece(OCI_INDEX, { schemaVersion: 2, mediaType: OCI_INDEX, manifests });
    const own = { ...descriptorOf(layer), platform: { os: 'linux', architecture: 'amd64' } };
    const manifests: { readonly [what: string]: readonly [Piece, RegExp] } = {
      'no JSON': [piece(OCI_MANIFEST, Buffer.from('{"config":')), /it is no JSON/],
      'no object': [piece(OCI_MANIFEST, Buffer.from('null')), /it is no object/],
      'deep nesting': [piece(OCI_MANIFEST, Buffer.alloc(3 * MEGABYTE, '[')), /it is no JSON/],
      'no config': [manifest({ config: undefined }), /it has no config/],
      'a config of null': [manifest({ config: null }), /malformed descriptor/],
      'layers in a text': [manifest({ layers: 'all' }), /layers is no list/],
      'layers of null': [manifest({ layers: [null] }), /malformed descriptor/],
      'a layer with a path for a digest': [
        manifest({ layers: [{ ...own, digest: 'sha256:../../../etc/passwd' }] }),
        /malformed descriptor/,
      ],
      'a layer of less than nothing': [manifest({ layers: [{ ...own, size: -1 }] }), /malformed descriptor/],
      'a layer of more than there is': [
        manifest({ layers: [{ ...own, size: 1e300 }] }),
        /malformed descriptor/,
      ],
      'very many layers': [
        manifest({ layers: Array.from({ length: 20_000 }, () => descriptorOf(layer)) }),
        /more than \d+/,
      ],
      'an index and a manifest at once': [manifest({ manifests: [] }), /a manifest and an index at once/],
      'an index that is a manifest': [
        jsonPiece(OCI_INDEX, { manifests: [], layers: [] }),
        /an index and a manifest at once/,
      ],
      'manifests in an object': [index({ length: 1e9 }), /manifests is no list/],
      'a platform of null': [
        index([{ ...own, mediaType: OCI_MANIFEST, platform: null }]),
        /no JSON|status 404/,
      ],
      'a platform of numbers': [
        index([{ ...own, mediaType: OCI_MANIFEST, platform: { os: 7, architecture: [] } }]),
        /malformed/,
      ],
      'very many manifests': [
        index(Array.from({ length: 20_000 }, () => ({ ...own, mediaType: OCI_MANIFEST }))),
        /more than \d+/,
      ],
    };
    const running = Object.entries(manifests).map(async ([what, [bytes, message]]) => {
      const failure = await failureOf(pull(rig.daemon, rig.ctr.namespace, publishManifest(bytes)));
      assert.match(failure.message, message, what);
      assert.ok(
        failure.code === invalid || failure.code === Code.NotFound,
        `${what}: ${failure.code} ${failure.message}`,
      );
    });
    const configs: { readonly [what: string]: readonly [string, RegExp] } = {
      'a config that is no JSON': ['nothing', /it is no JSON/],
      'a root of numbers': ['{"rootfs": 7}', /tells of 0 layers, its manifest of 1/],
      'diff ids in an object': ['{"rootfs": {"diff_ids": {}}}', /malformed diff ids/],
      'diff ids with paths': ['{"rootfs": {"diff_ids": ["sha256:../../x"]}}', /malformed diff ids/],
      'too many diff ids': [
        JSON.stringify({ rootfs: { diff_ids: [layer.digest, layer.digest] } }),
        /tells of 2 layers/,
      ],
      'a config without measure': [
        `{"x": "${'x'.repeat(9 * MEGABYTE)}"}`,
        /has \d+ bytes, more than 8388608/,
      ],
    };
    for (const [what, [text, message]] of Object.entries(configs)) {
      const bytes = piece(OCI_CONFIG, Buffer.from(text));
      const image = {
        manifest: manifest({ config: descriptorOf(bytes), layers: [descriptorOf(layer)] }),
        config: bytes,
        layers: [layer],
        diffIds: [],
      };
      running.push(refuses(what, publish(image), [invalid, message]));
    }
    // An index in an index in an index …
    count += 1;
    let nested = index([{ ...own, mediaType: OCI_MANIFEST }]);
    for (let depth = 0; depth < 10; depth += 1) {
      registry.putManifest(`h${count}`, 'x', nested);
      nested = index([{ ...descriptorOf(nested), platform: own.platform }]);
    }
    running.push(
      refuses('indexes in indexes', `${registry.host}/h${count}:x`, [invalid, /too many manifests/]),
    );
    await answering(Promise.all(running));
    await nothingHappened();
    assert.ok(peak() - memory < MAX_GROWTH, `the daemon has grown by ${(peak() - memory) / MEGABYTE} MiB`);
  });

  it('archives that are not what they should be', { timeout: 120_000 }, async () => {
    const memory = peak();
    const layer = archiveOf();
    const listed = (list: unknown) =>
      archive({ 'layer.tar': layer, 'c.json': '{}', 'manifest.json': JSON.stringify(list) });
    const good = await listed([{ Config: 'c.json', RepoTags: ['h:1'], Layers: ['layer.tar'] }]);
    const nowhere = { mediaType: OCI_MANIFEST, digest: digestOf(Buffer.from('nothing')), size: 7 };
    const archives: { readonly [what: string]: readonly [Buffer, RegExp] } = {
      'nothing of an image': [await archive({ x: 'y' }), /neither an OCI layout nor made by docker save/],
      'a way out': [
        await archive({ '../canaries/one': 'dead', '/etc/moor-was-here': 'x' }),
        /neither an OCI layout/,
      ],
      'no end': [good.subarray(0, 1800), /archive: /],
      'no archive': [Buffer.from('no archive '.repeat(1000)), /archive: /],
      'a giant manifest.json': [
        await archive({ 'manifest.json': Buffer.alloc(9 * MEGABYTE, ' ') }),
        /manifest.json is too large/,
      ],
      'no list': [await listed({}), /manifest.json is no list/],
      'a list of null': [await listed([null]), /archive: .*malformed/],
      'numbers for names': [await listed([{ Config: 7, Layers: ['layer.tar'] }]), /archive: .*malformed/],
      'layers in a text': [await listed([{ Config: 'c.json', Layers: 'layer.tar' }]), /archive: .*malformed/],
      'tags of numbers': [
        await listed([{ Config: 'c.json', RepoTags: [7], Layers: ['layer.tar'] }]),
        /archive: .*malformed/,
      ],
      'a layer that is not there': [
        await listed([{ Config: 'c.json', Layers: ['../../etc/passwd'] }]),
        /"..\/..\/etc\/passwd" is not in it/,
      ],
      'an index of what is not there': [
        await archive({ 'oci-layout': '{}', 'index.json': JSON.stringify({ manifests: [nowhere] }) }),
        /archive: .* is not in it/,
      ],
      'a bomb': [
        gzipSync(await archive({ 'index.json': Buffer.alloc(64 * MEGABYTE, ' ') })),
        /index.json is too large/,
      ],
    };
    using client = await connect({ address: rig.daemon.address, namespace: rig.ctr.namespace });
    for (const [what, [bytes, message]] of Object.entries(archives)) {
      const running = answering(
        client.transfers.import(Readable.from(chunksOf(bytes)), { platforms: 'all' }),
      );
      await assert.rejects(running, (error) => {
        assert.match((error as Error).message, message, what);
        assert.equal(toRpcError(error).code, invalid, what);
        return true;
      });
    }
    await nothingHappened();
    assert.ok(peak() - memory < MAX_GROWTH, `the daemon has grown by ${(peak() - memory) / MEGABYTE} MiB`);
  });
});

function* chunksOf(bytes: Buffer): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536);
}
