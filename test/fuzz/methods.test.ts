/**
 * Every method that the daemon serves, with messages made up from the contracts. Whatever is asked, the call ends, with an answer or with
 * a failure that speaks of the request; the daemon lives, and so does what it keeps.
 *
 * The seed of a failure is printed with it; `TEST_SEED` sets it, `FUZZ_CALLS` how many calls there are for each method.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, readFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { before, it } from 'node:test';
import { type CallOptions, Client, Metadata, type ServiceError, credentials, status } from '@grpc/grpc-js';
import * as fc from 'fast-check';
import { type DescMethod, contracts, methodsOf } from '../harness/contracts.ts';
import { busyboxImage, ociArchive } from '../harness/image.ts';
import { type Vocabulary, wireArbitrary } from '../harness/message-arbitrary.ts';
import { suite } from '../harness/peers.ts';
import { alive } from '../harness/processes.ts';
import { seeded } from '../harness/seed.ts';
import { eventually } from '../harness/wait.ts';

const calls = Number(process.env['FUZZ_CALLS'] ?? 3);
/** Milliseconds for a call; what waits for ever by its nature is given up. */
const DEADLINE_MS = 1500;
const AT_ONCE = 16;

/** An error of the program, and not of the request. */
const defect =
  /TypeError|ReferenceError|RangeError|Cannot (read|set|convert|mix|destructure)|is not (a function|iterable|defined)|ERR_[A-Z_]+|Invalid (array|string) length/;

const raw = (bytes: Uint8Array): Buffer => Buffer.from(bytes);

suite('methods', { peers: ['moord'], timeout: 3_600_000 }, (rig) => {
  let client: Client;
  let words: Vocabulary;
  let methods: DescMethod[];

  before(async () => {
    const { ctr, daemon } = rig;
    const name = 'd.test/harbour/ship:1';
    const image = await busyboxImage();
    await ctr.ok('images', 'import', ociArchive(join(daemon.directory, 'ship.tar'), [[name], image]));
    await ctr.runDetached('keeper', ['/bin/sleep', '1000']);
    await ctr.runDetached('victim', ['/bin/sleep', '1000']);
    // What is made by the calls is made here, as far as it is made of paths.
    const place = join(daemon.directory, 'place');
    mkdirSync(place);
    words = {
      texts: [
        '',
        'a',
        'victim',
        ctr.namespace,
        'overlayfs',
        'native',
        'x',
        name,
        image.manifest.digest,
        'sha256:00',
        `${place}/a`,
        `${place}/b/c`,
        'x'.repeat(300),
        'é\u0000',
        '%s%n',
        '{"a":',
        '-1',
        'walking',
        'labels."a/b"==c',
        'id~=[',
        'name==',
        'labels',
        'labels.a',
        'target',
        'spec',
        'name,name',
        '*',
        'no-such',
        'application/vnd.oci.image.manifest.v1+json',
        'io.containerd.runc.v2',
        'tcp',
        'eth0',
        '10.9.0.1/24',
      ],
      types: [
        '',
        'x',
        'types.containerd.io/opencontainers/runtime-spec/1/Spec',
        'containerd.runc.v1.Options',
        'types.containerd.io/opencontainers/runtime-spec/1/Process',
        'type.googleapis.com/containerd.events.TaskExit',
        'containerd.types.transfer.OCIRegistry',
        'containerd.types.transfer.ImageStore',
      ],
      bytes: [
        Buffer.from('{}'),
        Buffer.from('{"process":{"args":7},"linux":[]}'),
        Buffer.from('[null]'),
        Buffer.alloc(0),
        randomBytes(2000),
      ],
    };
    client = new Client(`unix://${daemon.address}`, credentials.createInsecure(), {
      'grpc.default_authority': 'localhost',
    });
    methods = methodsOf(contracts(), (service) =>
      /^(containerd\.services\.(?!events\.ttrpc)|runtime\.|moor\.services\.|grpc\.)/.test(service),
    );
  });

  const streamOf = (
    path: string,
    method: DescMethod,
    request: Uint8Array,
    metadata: Metadata,
    options: CallOptions,
  ) => {
    if (method.methodKind === 'server_streaming')
      return client.makeServerStreamRequest(path, raw, raw, request, metadata, options);
    const stream = client.makeBidiStreamRequest(path, raw, raw, metadata, options);
    for (let count = 0; count < 3; count += 1) stream.write(request);
    stream.end();
    return stream;
  };

  /** The failure by which a call ends, if it does. */
  const call = (method: DescMethod, request: Uint8Array): Promise<ServiceError | undefined> => {
    const path = `/${method.parent.typeName}/${method.name}`;
    const metadata = new Metadata();
    metadata.set('containerd-namespace', rig.ctr.namespace);
    const options = { deadline: Date.now() + DEADLINE_MS };
    return new Promise((resolve) => {
      if (method.methodKind === 'unary') {
        client.makeUnaryRequest(path, raw, raw, request, metadata, options, (error) =>
          resolve(error ?? undefined),
        );
        return;
      }
      const stream = streamOf(path, method, request, metadata, options);
      stream.on('data', () => undefined);
      stream.on('error', (error: ServiceError) => resolve(error));
      stream.on('end', () => resolve(undefined));
    });
  };

  it(
    'end with an answer or with a failure that speaks of the request',
    { timeout: 3_600_000 },
    async (context) => {
      const { daemon, ctr } = rig;
      const { pid } = daemon;
      const keeper = await ctr.task('keeper');
      assert.ok(methods.length > 100, `${methods.length} methods`);
      const seed = Math.floor(seeded(context).next(2 ** 31));
      const wanted = methods.flatMap((method) =>
        fc
          .sample(wireArbitrary(method.input, words), { numRuns: calls, seed })
          .map((request) => ({ method, request })),
      );
      const late = new Set<string>();
      let served = 0;
      const next = wanted.values();
      const work = async (): Promise<void> => {
        for (const { method, request } of next) {
          const error = await call(method, request);
          const name = `${method.parent.typeName}/${method.name}`;
          const about = `${name} of ${Buffer.from(request).toString('base64')}: ${error?.code} ${error?.details}`;
          assert.ok(alive(pid), `the daemon died of ${about}\n${daemon.tail()}`);
          assert.doesNotMatch(error?.details ?? '', defect, about);
          served += 1;
          if (error?.code === status.DEADLINE_EXCEEDED || error?.code === status.CANCELLED) late.add(name);
        }
      };
      await Promise.all(Array.from({ length: AT_ONCE }, work));
      context.diagnostic(`${served} calls to ${methods.length} methods; given up: ${[...late].join(' ')}`);
      assert.doesNotMatch(readFileSync(daemon.log, 'utf8'), /uncaughtException|unhandledRejection/);
      assert.deepEqual(await ctr.task('keeper'), keeper, 'a task that no call named is as it was');
      assert.equal((await ctr.exec('keeper', ['/bin/echo', 'here'])).stdout, 'here\n');
      await daemon.restart();
      assert.deepEqual(await ctr.task('keeper'), keeper, 'the next daemon starts from what there is');
      client.close();
    },
  );

  it(
    'of ttrpc: frames of any kind end their own connection at most',
    { timeout: 3_600_000 },
    async (context) => {
      const { daemon, ctr } = rig;
      const bundle = JSON.parse(
        readFileSync(join(daemon.bundle(ctr.namespace, 'keeper'), 'bootstrap.json'), 'utf8'),
      ) as { address: string };
      const seed = seeded(context);
      const keeper = await ctr.task('keeper');
      const { pid } = daemon;
      for (let round = 0; round < calls * 12; round += 1) {
        const address = round % 2 === 0 ? `${daemon.address}.ttrpc` : bundle.address;
        const socket = createConnection(address);
        socket.on('error', () => undefined);
        await once(socket, 'connect');
        for (let frame = 0; frame < 1 + seed.next(5); frame += 1) {
          const payload = randomBytes(Math.floor(seed.next(200)));
          const header = Buffer.alloc(10);
          header.writeUInt32BE(seed.pick([payload.length, 0, 4 << 20, 2 ** 32 - 1, payload.length + 3]), 0);
          header.writeUInt32BE(seed.pick([0, 1, 2, 3, 2 ** 31, 2 ** 32 - 1]), 4);
          header[8] = seed.pick([0, 1, 2, 3, 255]);
          header[9] = seed.pick([0, 1, 2, 4, 255]);
          if (!socket.destroyed) socket.write(Buffer.concat([header, payload]));
        }
        socket.end();
        socket.destroySoon();
      }
      assert.equal(daemon.pid, pid);
      assert.ok(alive(pid));
      await eventually('the shim answers', async () => (await ctr.exec('keeper', ['/bin/true'])).code === 0, {
        within: 30_000,
      });
      assert.deepEqual(await ctr.task('keeper'), keeper);
      await ctr.remove('keeper');
    },
  );
});
