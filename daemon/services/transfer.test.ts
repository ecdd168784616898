import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { type TestContext, test } from 'node:test';
import { gunzipSync, zstdDecompressSync } from 'node:zlib';
import { StreamInit } from '../../proto/gen/containerd/services/streaming.ts';
import type { StreamingDefinition } from '../../proto/gen/containerd/services/streaming.ts';
import type { TransferDefinition } from '../../proto/gen/containerd/services/transfer.ts';
import {
  AuthRequest,
  AuthResponse,
  AuthType,
  Data,
  ImageExportStream,
  ImageImportStream,
  ImageStore,
  OCIRegistry,
  Progress,
  WindowUpdate,
} from '../../proto/gen/containerd/types/transfer.ts';
import type { Any } from '../../proto/gen/google/protobuf/any.ts';
import { Code, isCode } from '../../ttrpc/errors.ts';
import type { CallContext, PartialMessage, ServiceImplementation } from '../../ttrpc/service.ts';
import { messageAny, typeNameOf } from '../distribution/any.ts';
import { Streams } from '../distribution/streams.ts';
import { busyboxImage, descriptorOf, jsonPiece, makeImage, archive } from '../distribution/testing/image.ts';
import { TrickyRegistry, DebianRegistry, withoutDebianRegistry } from '../distribution/testing/registries.ts';
import { Stage, here } from '../distribution/testing/stage.ts';
import { chainIds } from '../distribution/unpack.ts';
import { streamingService } from './streaming.ts';
import { transferService } from './transfer.ts';

const PREFIX = 'containerd.types.transfer.';
const types = { OCIRegistry, ImageStore, ImageImportStream, ImageExportStream };

function end<K extends keyof typeof types>(
  kind: K,
  message: PartialMessage<ReturnType<(typeof types)[K]['decode']>>,
): Any {
  return messageAny(`${PREFIX}${kind}`, types[kind] as never, message as never);
}

/** The client's side of a stream. */
class Stream {
  readonly received: AsyncIterator<PartialMessage<Any>>;
  readonly #sent = new PassThrough({ objectMode: true });

  constructor(
    streaming: ServiceImplementation<typeof StreamingDefinition>,
    id: string,
    context: CallContext,
  ) {
    this.send(messageAny('containerd.services.streaming.v1.StreamInit', StreamInit, { id }));
    this.received = streaming.stream(this.#sent as AsyncIterable<Any>, context)[Symbol.asyncIterator]();
  }

  send(message: Any): void {
    this.#sent.write(message);
  }

  close(): void {
    this.#sent.end();
  }

  async next(): Promise<Any | undefined> {
    const { done, value } = await this.received.next();
    return done === true ? undefined : (value as Any);
  }
}

class Client {
  readonly stage: Stage;
  readonly transfer: ServiceImplementation<typeof TransferDefinition>;
  readonly #streaming: ServiceImplementation<typeof StreamingDefinition>;
  readonly #stop = new AbortController();

  private constructor(stage: Stage) {
    this.stage = stage;
    const streams = new Streams();
    this.transfer = transferService(stage.distribution, streams).implementation as never;
    this.#streaming = streamingService(streams).implementation as never;
  }

  static async open(t: TestContext): Promise<Client> {
    const client = new Client(await Stage.open());
    t.after(async () => {
      client.#stop.abort(new Error('the test is over'));
      await client.stage[Symbol.asyncDispose]();
    });
    return client;
  }

  get context(): CallContext {
    return { signal: this.#stop.signal, metadata: new Map([['containerd-namespace', ['here']]]) };
  }

  async stream(id: string): Promise<Stream> {
    const stream = new Stream(this.#streaming, id, this.context);
    assert.equal((await stream.next())?.typeUrl, 'google.protobuf.Empty');
    return stream;
  }

  async run(source: Any, destination: Any, progressStream = ''): Promise<void> {
    await this.transfer.transfer({ source, destination, options: { progressStream } }, this.context);
  }

  /** What an export sends. */
  async export(name: string, mediaType = ''): Promise<Buffer> {
    const stream = await this.stream('out');
    const running = this.run(
      end('ImageStore', { name }),
      end('ImageExportStream', { stream: 'out', allPlatforms: true, mediaType }),
    );
    const pieces: Buffer[] = [];
    stream.send(messageAny(`${PREFIX}WindowUpdate`, WindowUpdate, { update: 65536 }));
    for (let message = await stream.next(); message !== undefined; message = await stream.next()) {
      const { data } = Data.decode(message.value);
      pieces.push(data);
      stream.send(messageAny(`${PREFIX}WindowUpdate`, WindowUpdate, { update: data.length }));
    }
    await running;
    return Buffer.concat(pieces);
  }

  async import(
    bytes: Buffer,
    store: PartialMessage<ImageStore> = {},
    from: PartialMessage<ImageImportStream> = {},
  ): Promise<void> {
    const stream = await this.stream('in');
    const sending = (async () => {
      for (let offset = 0, window = 0; offset < bytes.length;) {
        while (window <= 0) {
          const message = await stream.next();
          // Whoever refuses the archive reads no more of it.
          if (message === undefined) return;
          window += WindowUpdate.decode(message.value).update;
        }
        const data = bytes.subarray(offset, offset + Math.min(window, 32768));
        stream.send(messageAny(`${PREFIX}Data`, Data, { data }));
        window -= data.length;
        offset += data.length;
      }
      stream.close();
      while ((await stream.next()) !== undefined);
    })();
    await this.run(end('ImageImportStream', { stream: 'in', ...from }), end('ImageStore', store));
    await sending;
  }
}

const linux = { os: 'linux', architecture: 'amd64' };

test('a pull asks for credentials and tells its progress', async (t) => {
  await using registry = await TrickyRegistry.start();
  const image = await busyboxImage();
  registry.put('r', 'x', image);
  const authorization = `Basic ${Buffer.from('moor:anchor').toString('base64')}`;
  registry.trick = (request, response) => {
    if (request.headers.authorization === authorization) return false;
    response.writeHead(401, { 'www-authenticate': 'Basic realm="moor"' }).end();
    return true;
  };
  const client = await Client.open(t);
  const progress = await client.stream('progress');
  const auth = await client.stream('auth');
  const name = `${registry.host}/r:x`;
  const running = client.run(
    end('OCIRegistry', { reference: name, resolver: { authStream: 'auth' } }),
    end('ImageStore', { name, platforms: [linux], unpacks: [{ platform: linux, snapshotter: 'overlayfs' }] }),
    'progress',
  );
  const asked = AuthRequest.decode((await auth.next())!.value);
  assert.equal(asked.host, registry.host);
  const answer = { authType: AuthType.CREDENTIALS, username: 'moor', secret: 'anchor' };
  auth.send(messageAny(`${PREFIX}AuthResponse`, AuthResponse, answer));
  await running;
  const events: string[] = [];
  for (let message = await progress.next(); message !== undefined; message = await progress.next()) {
    assert.equal(typeNameOf(message), `${PREFIX}Progress`);
    const { event, name } = Progress.decode(message.value);
    events.push(`${event} ${name}`.trim());
  }
  assert.equal(events[0], `Resolving from ${name}`);
  assert.equal(events.at(-1), `Completed pull from ${name}`);
  for (const event of [
    `complete layer-${image.layers[0]!.digest}`,
    `extracted layer-${image.layers[1]!.digest}`,
    `saved ${name}`,
  ])
    assert.ok(events.includes(event), event);
});

test('an image goes to Debian’s registry and comes back', { skip: withoutDebianRegistry }, async (t) => {
  await using debian = await DebianRegistry.start();
  const image = await makeImage([{ noise: Buffer.alloc(20 << 20, 'x') }, { a: 'a' }]);
  await debian.put('from', 'x', image);
  const client = await Client.open(t);
  const from = `${debian.host}/from:x`;
  await client.run(end('OCIRegistry', { reference: from }), end('ImageStore', { name: from }));
  for (const to of [`${debian.host}/to:y`, `${debian.host}/to:z`])
    await client.run(end('ImageStore', { name: from }), end('OCIRegistry', { reference: to }));
  const other = await Client.open(t);
  const back = `${debian.host}/to:z`;
  await other.run(end('OCIRegistry', { reference: back }), end('ImageStore', { name: back }));
  const { target } = other.stage.distribution.images.get(here, back);
  assert.equal(target?.digest, image.manifest.digest);
});

test('an image gets another name', async (t) => {
  await using registry = await TrickyRegistry.start();
  registry.put('r', 'x', await makeImage([{ a: 'a' }]));
  const client = await Client.open(t);
  const name = `${registry.host}/r:x`;
  await client.run(end('OCIRegistry', { reference: name }), end('ImageStore', { name }));
  await client.run(end('ImageStore', { name }), end('ImageStore', { name: 'other/name:y' }));
  const { images } = client.stage.distribution;
  assert.deepEqual(images.get(here, 'other/name:y').target, images.get(here, name).target);
});

test('what is exported is imported elsewhere, and unpacked', async (t) => {
  await using registry = await TrickyRegistry.start();
  const image = await busyboxImage();
  registry.put('r', 'x', image);
  const client = await Client.open(t);
  const name = `${registry.host}/r:x`;
  await client.run(end('OCIRegistry', { reference: name }), end('ImageStore', { name }));
  const bytes = await client.export(name);
  const other = await Client.open(t);
  await other.import(bytes, {
    unpacks: [{ platform: linux }],
    extraReferences: [{ isPrefix: true, allowOverwrite: true }],
  });
  const { images, snapshotters } = other.stage.distribution;
  assert.equal(images.get(here, name).target?.digest, image.manifest.digest);
  assert.ok(snapshotters.get('overlayfs').stat(here, chainIds(image.diffIds)[1]!));
});

test('an archive is compressed as its media type says, both ways', async (t) => {
  await using registry = await TrickyRegistry.start();
  const image = await busyboxImage();
  registry.put('r', 'x', image);
  const client = await Client.open(t);
  const name = `${registry.host}/r:x`;
  await client.run(end('OCIRegistry', { reference: name }), end('ImageStore', { name }));
  const plain = await client.export(name);
  const unpacked = { gzip: gunzipSync, zstd: zstdDecompressSync };
  for (const [compression, decompress] of Object.entries(unpacked)) {
    const mediaType = `application/vnd.oci.image.layout.tar+${compression}`;
    const bytes = await client.export(name, mediaType);
    assert.equal(decompress(bytes).length, plain.length);
    for (const told of [mediaType, '']) {
      const other = await Client.open(t);
      const extraReferences = [{ isPrefix: true, allowOverwrite: true }];
      await other.import(bytes, { extraReferences }, { mediaType: told });
      const { images } = other.stage.distribution;
      assert.equal(images.get(here, name).target?.digest, image.manifest.digest);
    }
    const wrong = await Client.open(t);
    // What is said to be a plain archive is not looked into.
    await assert.rejects(
      wrong.import(bytes, {}, { mediaType: 'application/vnd.oci.image.layout.tar' }),
      (error) => isCode(error, Code.InvalidArgument),
    );
  }
  await assert.rejects(
    client.import(plain, {}, { mediaType: 'application/x+brotli' }),
    (error) => isCode(error, Code.Unimplemented) && /\+brotli/.test(error.message),
  );
});

test('what docker save wrote is imported', async (t) => {
  const layer = await archive({ a: 'a' });
  const config = jsonPiece('', {
    os: 'linux',
    architecture: 'amd64',
    rootfs: { type: 'layers', diff_ids: [] },
  });
  const manifest = [{ Config: 'c.json', RepoTags: ['busybox:latest'], Layers: ['1/layer.tar'] }];
  const bytes = await archive({
    '1/layer.tar': layer,
    'c.json': config.bytes,
    'manifest.json': JSON.stringify(manifest),
  });
  const client = await Client.open(t);
  await client.import(bytes);
  const { images, content } = client.stage.distribution;
  const { target } = images.get(here, 'docker.io/library/busybox:latest');
  const labels = content.list(here).find(({ digest }) => digest === target!.digest)!.labels;
  assert.equal(labels['containerd.io/gc.ref.content.config'], descriptorOf(config).digest);
});

test('an archive that is none, or lies, is refused', async (t) => {
  const client = await Client.open(t);
  const refused = (code: Code) => (error: unknown) => isCode(error, code);
  await assert.rejects(client.import(await archive({ x: 'y' })), refused(Code.InvalidArgument));
  const liar = await Client.open(t);
  const lie = await archive({ [`blobs/sha256/${'0'.repeat(64)}`]: 'truth', 'oci-layout': '{}' });
  await assert.rejects(liar.import(lie), refused(Code.FailedPrecondition));
  assert.deepEqual(liar.stage.distribution.content.list(here), []);
});

test('what cannot be is told', async (t) => {
  const client = await Client.open(t);
  const registry = end('OCIRegistry', { reference: 'a.test/b:c' });
  await assert.rejects(client.run(registry, registry), (error) => isCode(error, Code.Unimplemented));
  const missing = client.run(end('ImageStore', { name: 'nobody' }), registry);
  await assert.rejects(missing, (error) => isCode(error, Code.NotFound));
  await assert.rejects(client.run(registry, end('ImageStore', { name: 'x' }), 'no-stream'), (error) =>
    isCode(error, Code.NotFound),
  );
});
