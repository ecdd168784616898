import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import { join } from 'node:path';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import type { Descriptor } from '../../proto/gen/containerd/types/descriptor.ts';
import { Code, isCode } from '../../ttrpc/errors.ts';
import type { CredentialSource } from './auth.ts';
import { DOCKER_MANIFEST, OCI_INDEX } from './media-types.ts';
import { type Selection, fetchImage } from './pull.ts';
import { parseReference } from './reference.ts';
import { Registry } from './registry.ts';
import { busyboxImage, makeImage, makeIndex } from './testing/image.ts';
import { DebianRegistry, TrickyRegistry, withoutDebianRegistry } from './testing/registries.ts';
import { Stage, hasty, here } from './testing/stage.ts';
import { chainIds } from './unpack.ts';

const amd64 = { os: 'linux', architecture: 'amd64', variant: '', osVersion: '' };
const unpacked: Selection = { targets: [amd64], unpacks: [{ target: amd64, snapshotter: 'overlayfs' }] };
const fetched: Selection = { targets: [amd64] };

async function pull(
  stage: Stage,
  name: string,
  selection = fetched,
  credentials?: CredentialSource,
  signal?: AbortSignal,
): Promise<Descriptor> {
  await using registry = await Registry.open(parseReference(name), { retries: hasty, credentials });
  return await stage.distribution.leased(stage.session(signal), async (session) => {
    const target = await fetchImage(stage.distribution, session, registry, selection);
    await stage.distribution.name(session, name, target);
    return target;
  });
}

function refusal(code: Code, pattern: RegExp) {
  return (error: unknown): boolean => {
    assert.ok(error instanceof Error);
    assert.match(error.message, pattern);
    assert.ok(isCode(error, code), `${error.message}: ${String((error as { code?: unknown }).code)}`);
    return true;
  };
}

test(
  'an image is pulled from Debian’s registry, unpacked and named',
  { skip: withoutDebianRegistry },
  async () => {
    await using debian = await DebianRegistry.start();
    await using stage = await Stage.open();
    const image = await busyboxImage();
    await debian.put('tools/busybox', 'one', image);
    const name = `${debian.host}/tools/busybox:one`;
    const { digest } = await pull(stage, name, unpacked);
    assert.equal(digest, image.manifest.digest);
    const { content, images, snapshotters } = stage.distribution;
    assert.equal(images.get(here, name).target?.digest, digest);
    const labels = new Map(content.list(here).map((info) => [info.digest, info.labels]));
    const [, top] = chainIds(image.diffIds);
    assert.equal(labels.get(image.config.digest)?.['containerd.io/gc.ref.snapshot.overlayfs'], top);
    assert.equal(labels.get(digest)?.['containerd.io/gc.ref.content.l.1'], image.layers[1]!.digest);
    assert.equal(labels.get(image.layers[0]!.digest)?.['containerd.io/uncompressed'], image.diffIds[0]);
    const source = labels.get(digest)?.[`containerd.io/distribution.source.${debian.host}`];
    assert.equal(source, 'tools/busybox');
    const [mount] = await snapshotters.get('overlayfs').view(here, 'look', top!);
    const lower = /lowerdir=([^:]+)/.exec(mount!.options.join(','))![1]!;
    assert.equal(readFileSync(join(lower, 'etc/greeting'), 'utf8'), 'moored');
    assert.deepEqual(stage.distribution.leases.list(here), [], 'no lease is left');
  },
);

test('a digest and Docker’s media types are pulled as well', async () => {
  await using registry = await TrickyRegistry.start();
  await using stage = await Stage.open();
  const image = await busyboxImage('docker', { docker: true });
  registry.put('a/b', 'x', image);
  const { mediaType } = await pull(stage, `${registry.host}/a/b@${image.manifest.digest}`, unpacked);
  assert.equal(mediaType, DOCKER_MANIFEST);
});

test('of an index the platform that suits is taken, or all of them', async () => {
  await using registry = await TrickyRegistry.start();
  const mine = await makeImage([{ file: 'amd64' }]);
  const other = await makeImage([{ file: 'arm' }], { architecture: 'arm64' });
  const index = makeIndex([
    [{ os: 'linux', architecture: 'arm64' }, other],
    [{ os: 'linux', architecture: 'amd64' }, mine],
  ]);
  for (const image of [mine, other]) registry.put('r', image.manifest.digest, image);
  registry.putManifest('r', 'multi', index);
  for (const [selection, count] of [
    [unpacked, 4],
    [{ targets: [] }, 7],
    [{ targets: [amd64], allMetadata: true }, 6],
  ] as const) {
    await using stage = await Stage.open();
    const target = await pull(stage, `${registry.host}/r:multi`, selection);
    assert.equal(target.mediaType, OCI_INDEX);
    assert.equal(stage.distribution.content.list(here).length, count);
  }
  await using stage = await Stage.open();
  const s390x = { os: 'linux', architecture: 's390x', variant: '', osVersion: '' };
  const missing = pull(stage, `${registry.host}/r:multi`, { targets: [s390x] });
  await assert.rejects(missing, refusal(Code.NotFound, /no match for platform linux\/s390x/));
});

test('two pulls that want the same content fetch it once', async () => {
  await using registry = await TrickyRegistry.start();
  await using stage = await Stage.open();
  const image = await busyboxImage();
  registry.put('r', 'one', image);
  registry.put('r', 'two', image);
  await Promise.all(['one', 'two'].map((tag) => pull(stage, `${registry.host}/r:${tag}`, unpacked)));
  for (const { digest } of image.layers) {
    assert.equal(
      registry.requests.filter((request) => request.startsWith('GET') && request.includes(digest)).length,
      1,
    );
  }
});

test('a broken connection goes on where it broke', async () => {
  await using registry = await TrickyRegistry.start();
  await using stage = await Stage.open();
  const image = await makeImage([{ noise: randomBytes(3 << 20) }]);
  const layer = image.layers[0]!;
  registry.put('r', 'x', image);
  const ranges: (string | undefined)[] = [];
  registry.trick = (request, response, path) => {
    if (!path.endsWith(layer.digest)) return false;
    ranges.push(request.headers.range);
    if (ranges.length > 1) return false;
    response.writeHead(200, { 'content-length': layer.bytes.length });
    response.write(layer.bytes.subarray(0, 1 << 20), () => setTimeout(() => response.destroy(), 20));
    return true;
  };
  await pull(stage, `${registry.host}/r:x`, unpacked);
  assert.equal(ranges.length, 2);
  assert.match(ranges[1]!, /^bytes=[1-9]\d*-$/);
});

test('a registry without ranges is asked from the beginning', async () => {
  await using registry = await TrickyRegistry.start();
  await using stage = await Stage.open();
  const image = await makeImage([{ noise: randomBytes(1 << 20) }]);
  const layer = image.layers[0]!;
  registry.put('r', 'x', image);
  let tries = 0;
  registry.trick = (_, response, path) => {
    if (!path.endsWith(layer.digest)) return false;
    response.writeHead(200, { 'content-length': layer.bytes.length });
    if ((tries += 1) > 1) response.end(layer.bytes);
    else response.write(layer.bytes.subarray(0, 1 << 19), () => setTimeout(() => response.destroy(), 20));
    return true;
  };
  await pull(stage, `${registry.host}/r:x`, unpacked);
  assert.equal(tries, 2);
});

test('lies of a registry leave nothing behind', async (t) => {
  await using registry = await TrickyRegistry.start();
  const image = await makeImage([{ file: 'truth '.repeat(1000) }]);
  const layer = image.layers[0]!;
  registry.put('r', 'x', image);
  const name = `${registry.host}/r:x`;
  const lies: { [what: string]: [(response: ServerResponse) => void, Code, RegExp] } = {
    'another content of the same size': [
      (response) => response.end(Buffer.alloc(layer.bytes.length)),
      Code.FailedPrecondition,
      /unexpected commit digest/,
    ],
    'a short body': [
      (response) => response.writeHead(200, { 'content-length': 5 }).end('short'),
      Code.Unavailable,
      /ended at \d+ of \d+ bytes/,
    ],
    'an endless body': [
      (response) => {
        const more = (): void =>
          void (response.destroyed || response.write(Buffer.alloc(65536), () => setImmediate(more)));
        more();
      },
      Code.FailedPrecondition,
      /more than its \d+ bytes/,
    ],
    'redirects in circles': [
      (response) => response.writeHead(307, { location: response.req.url! }).end(),
      Code.Unavailable,
      /redirected more than 10 times/,
    ],
    'a failure of its own': [(response) => response.writeHead(500).end(), Code.Unavailable, /status 500/],
  };
  for (const [what, [lie, code, pattern]] of Object.entries(lies)) {
    await t.test(what, async () => {
      await using stage = await Stage.open();
      registry.trick = (_, response, path) => {
        if (!path.endsWith(layer.digest)) return false;
        lie(response);
        return true;
      };
      await assert.rejects(pull(stage, name, unpacked), refusal(code, pattern));
      const { content, images, snapshotters } = stage.distribution;
      assert.equal(images.find(here, name), undefined);
      assert.ok(!content.list(here).some(({ digest }) => digest === layer.digest));
      assert.deepEqual(snapshotters.get('overlayfs').list(here), []);
      assert.deepEqual(stage.distribution.leases.list(here), []);
    });
  }
});

test('a manifest that is not what the digest says is refused', async () => {
  await using registry = await TrickyRegistry.start();
  await using stage = await Stage.open();
  const image = await makeImage([{ file: 'a' }]);
  const other = await makeImage([{ file: 'b' }]);
  registry.put('r', 'x', image);
  registry.trick = (request, response) => {
    response.writeHead(200, {
      'content-type': other.manifest.mediaType,
      'content-length': other.manifest.bytes.length,
    });
    response.end(request.method === 'HEAD' ? '' : other.manifest.bytes);
    return true;
  };
  const name = `${registry.host}/r@${image.manifest.digest}`;
  await assert.rejects(pull(stage, name), refusal(Code.FailedPrecondition, /unexpected commit digest/));
});

test('a registry that has enough is left alone for as long as it wants', async () => {
  await using registry = await TrickyRegistry.start();
  await using stage = await Stage.open();
  registry.put('r', 'x', await makeImage([{ file: 'a' }]));
  const refused = performance.now();
  let count = 0;
  registry.trick = (_, response) => {
    if ((count += 1) > 1) return false;
    response.writeHead(429, { 'retry-after': '1' }).end();
    return true;
  };
  await pull(stage, `${registry.host}/r:x`);
  assert.ok(performance.now() - refused >= 990);
});

test('a pull that is given up ends at once and keeps no lease', async () => {
  await using registry = await TrickyRegistry.start();
  await using stage = await Stage.open();
  const image = await makeImage([{ file: 'a' }]);
  registry.put('r', 'x', image);
  const stop = new AbortController();
  registry.trick = (_, response, path) => {
    if (!path.endsWith(image.layers[0]!.digest)) return false;
    response.writeHead(200, { 'content-length': image.layers[0]!.bytes.length });
    response.write('x', () => stop.abort(new Error('given up')));
    return true;
  };
  await assert.rejects(pull(stage, `${registry.host}/r:x`, unpacked, undefined, stop.signal));
  assert.deepEqual(stage.distribution.leases.list(here), []);
});
