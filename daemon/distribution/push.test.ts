import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { type Server, createServer, request as httpRequest } from 'node:http';
import type { AddressInfo } from 'node:net';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Code, isCode } from '../../ttrpc/errors.ts';
import { refKeyOf } from './media-types.ts';
import { fetchImage } from './pull.ts';
import { pushImage } from './push.ts';
import { parseReference } from './reference.ts';
import { Registry } from './registry.ts';
import { type MadeImage, makeImage, makeIndex } from './testing/image.ts';
import { DebianRegistry, TrickyRegistry, withoutDebianRegistry } from './testing/registries.ts';
import { Stage, hasty, here } from './testing/stage.ts';

const open = (name: string): Promise<Registry> => Registry.open(parseReference(name), { retries: hasty });

test(
  'a large layer goes in pieces, to another repository not at all',
  { skip: withoutDebianRegistry },
  async () => {
    await using debian = await DebianRegistry.start();
    await using source = await TrickyRegistry.start();
    await using stage = await Stage.open();
    const image = await makeImage([{ noise: randomBytes(18 << 20) }]);
    source.put('r', 'x', image);
    const { distribution } = stage;
    await using from = await open(`${source.host}/r:x`);
    const layer = refKeyOf(image.layers[0]!);
    const events = (): string[] =>
      stage.steps
        .splice(0)
        .filter(({ name }) => name === layer)
        .map(({ event }) => event);
    await distribution.leased(stage.session(), async (session) => {
      const target = await fetchImage(distribution, session, from, { targets: [] });
      events();
      await using first = await open(`${debian.host}/first:x`);
      await pushImage(distribution, session, first, target);
      assert.deepEqual(events(), ['uploading', 'uploading', 'uploading', 'complete']);
      await using second = await open(`${debian.host}/second:x`);
      await pushImage(distribution, session, second, target);
      assert.deepEqual(events(), ['already exists']);
      assert.equal((await second.resolve()).digest, image.manifest.digest);
    });
    const { labels } = distribution.content.info(here, image.layers[0]!.digest as never);
    assert.equal(labels[`containerd.io/distribution.source.${debian.host}`], 'first,second');
  },
);

/** A way to a registry that breaks once, when the second piece of a blob has passed that far. */
class BreakingWay implements AsyncDisposable {
  readonly requests: string[] = [];
  readonly #server: Server;
  #pieces = 0;

  constructor(target: string, passes: number) {
    const [hostname, port] = target.split(':');
    this.#server = createServer((request, response) => {
      const { method = '', url = '', headers } = request;
      this.requests.push(`${method} ${url.replace(/\?.*|[0-9a-f-]{36}.*/, '')}`);
      const breaks = method === 'PATCH' && (this.#pieces += 1) === 2;
      if (breaks && passes === 0) {
        request.socket.destroy();
        return;
      }
      const onward = httpRequest({ hostname, port, path: url, method, headers }, (answer) => {
        response.writeHead(answer.statusCode!, answer.headers);
        answer.pipe(response);
      });
      onward.on('error', () => request.socket.destroy());
      let passed = 0;
      request.on('data', (bytes: Buffer) => {
        passed += bytes.length;
        onward.write(bytes);
        if (!breaks || passed < passes) return;
        request.removeAllListeners('data');
        onward.destroy();
      });
      request.on('end', () => onward.end());
    });
  }

  async listen(): Promise<string> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }
}

/** Brings an image into the store and pushes it. */
async function copy(image: MadeImage, host: string): Promise<void> {
  await using source = await TrickyRegistry.start();
  await using stage = await Stage.open();
  source.put('r', 'x', image);
  const { distribution } = stage;
  await using from = await open(`${source.host}/r:x`);
  await using to = await open(`${host}/r:x`);
  await distribution.leased(stage.session(), async (session) => {
    const target = await fetchImage(distribution, session, from, { targets: [] });
    await pushImage(distribution, session, to, target);
  });
}

// Debian's registry forgets an upload of which a part of a piece has arrived.
for (const [passes, begun] of [
  [0, 2],
  [4 << 20, 3],
] as const) {
  test(
    `an upload that breaks off after ${passes} bytes of a piece ends well, begun ${begun} times with the configuration`,
    { skip: withoutDebianRegistry },
    async () => {
      await using debian = await DebianRegistry.start();
      await using way = new BreakingWay(debian.host, passes);
      const host = await way.listen();
      const image = await makeImage([{ noise: randomBytes(18 << 20) }]);
      await copy(image, host);
      await using to = await open(`${host}/r:x`);
      assert.equal((await to.resolve()).digest, image.manifest.digest);
      const uploads = way.requests.filter((request) => request.endsWith(' /v2/r/blobs/uploads/'));
      assert.equal(uploads.filter((request) => request.startsWith('POST')).length, begun);
      assert.equal(uploads.filter((request) => request.startsWith('GET')).length, 1);
    },
  );
}

test('an upload goes on in the middle of a piece where the registry says how much it has', async () => {
  await using registry = await TrickyRegistry.start();
  const image = await makeImage([{ noise: randomBytes(18 << 20) }]);
  const uploads: { bytes: Buffer; length: number }[] = [];
  const rest: number[] = [];
  let pieces = 0;
  registry.trick = (request, response, path) => {
    const { method } = request;
    if (method === 'HEAD') response.writeHead(404).end();
    else if (method === 'POST') {
      uploads.push({ bytes: Buffer.alloc(32 << 20), length: 0 });
      response.writeHead(202, { location: `/v2/r/blobs/uploads/${uploads.length - 1}` }).end();
    } else if (path.includes('/manifests/')) {
      request.resume().on('end', () => response.writeHead(201).end());
    } else {
      const id = Number(/uploads\/(\d+)/.exec(path)![1]);
      const range = (): string => `0-${Math.max(uploads[id]!.length - 1, 0)}`;
      if (method === 'GET') return (response.writeHead(204, { range: range() }).end(), true);
      if (method === 'PUT') rest.push(Number(request.headers['content-length']));
      const breaks = method === 'PATCH' && (pieces += 1) === 2;
      request.on('data', (bytes: Buffer) => {
        const upload = uploads[id]!;
        upload.length += bytes.copy(upload.bytes, upload.length);
        if (breaks && upload.length > 12 << 20) request.socket.destroy();
      });
      request.on('end', () => {
        const location = `/v2/r/blobs/uploads/${id}`;
        response.writeHead(method === 'PATCH' ? 202 : 201, { location, range: range() }).end();
      });
    }
    return true;
  };
  await copy(image, registry.host);
  const layer = uploads.find(({ length }) => length > 1 << 20)!;
  assert.equal(uploads.length, 2);
  assert.ok(layer.bytes.subarray(0, layer.length).equals(image.layers[0]!.bytes));
  assert.equal(pieces, 2);
  assert.ok(Math.max(...rest) < layer.length - (12 << 20), `the last request had ${Math.max(...rest)} bytes`);
});

test(
  'a registry with a certificate of its own is trusted when hosts.toml says so',
  { skip: withoutDebianRegistry },
  async (t) => {
    const directory = mkdtempSync(join(tmpdir(), 'moor-tls-'));
    t.after(() => rmSync(directory, { recursive: true }));
    const request =
      'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=moor';
    const files = ['-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', 'key.pem', '-out', 'cert.pem'];
    execFileSync('openssl', [...request.split(' '), ...files], { cwd: directory, stdio: 'ignore' });
    const pem = (name: string): string => readFileSync(join(directory, name), 'utf8');
    const section = 'http: {addr: "ADDRESS", tls: {certificate: DIRECTORY/cert.pem, key: DIRECTORY/key.pem}}';
    await using debian = await DebianRegistry.start(section, {
      'cert.pem': pem('cert.pem'),
      'key.pem': pem('key.pem'),
    });
    const reference = parseReference(`${debian.host}/r:x`);
    // Waiting would not make the certificate any better, and this is longer than a test may take.
    await using stranger = await Registry.open(reference, {
      scheme: 'https',
      retries: { ...hasty, delay: 3_600_000 },
    });
    await assert.rejects(stranger.resolve(), (error) => isCode(error, Code.Unavailable));
    mkdirSync(join(directory, debian.host));
    const toml = `server = "https://${debian.host}"\nca = "${directory}/cert.pem"\n`;
    writeFileSync(join(directory, debian.host, 'hosts.toml'), toml);
    await using known = await Registry.open(reference, { directory, retries: hasty });
    await assert.rejects(known.resolve(), (error) => isCode(error, Code.NotFound));
  },
);

test('an index whose other manifests are nowhere is refused before anything is sent', async () => {
  await using source = await TrickyRegistry.start();
  await using target = await TrickyRegistry.start();
  await using stage = await Stage.open();
  const mine = await makeImage([{ file: 'amd64' }]);
  const other = await makeImage([{ file: 'arm' }], { architecture: 'arm64' });
  const index = makeIndex([
    [{ os: 'linux', architecture: 'amd64' }, mine],
    [{ os: 'linux', architecture: 'arm64' }, other],
  ]);
  source.put('r', 'mine', mine);
  source.putManifest('r', 'x', index);
  const { distribution } = stage;
  await using from = await open(`${source.host}/r:x`);
  await using to = await open(`${target.host}/r:x`);
  await distribution.leased(stage.session(), async (session) => {
    const amd64 = { os: 'linux', architecture: 'amd64', variant: '', osVersion: '' };
    const found = await fetchImage(distribution, session, from, { targets: [amd64] });
    const missing = new RegExp(
      `neither here nor at the registry: ${other.manifest.digest} \\(linux/arm64\\)`,
    );
    await assert.rejects(pushImage(distribution, session, to, found), (error) => {
      assert.ok(isCode(error, Code.FailedPrecondition));
      assert.match(error.message, missing);
      return true;
    });
    assert.deepEqual(target.requests, [`HEAD /v2/r/manifests/${other.manifest.digest}`]);
  });
});
