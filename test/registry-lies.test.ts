/** Registries that fail or lie: the daemon says clearly what was wrong or gets over it, and never takes a wrong blob for the right one. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import { after, before, it } from 'node:test';
import { ContentDefinition } from '../proto/gen/containerd/services/content.ts';
import { TrickyRegistry, type Trick } from '../daemon/distribution/testing/registries.ts';
import { Code } from '../ttrpc/errors.ts';
import { type MadeImage, makeImage } from './harness/image.ts';
import { expectNothingLeft, holdings } from './harness/leftovers.ts';
import { suite } from './harness/peers.ts';
import { failureOf } from './harness/rpc.ts';
import {
  digestsOf,
  expectNothingStored,
  expectWhole,
  leasesOf,
  giveUpIngests,
  ingestsOf,
} from './harness/stored.ts';
import { type PullOptions, pull } from './harness/transfer.ts';
import { eventually } from './harness/wait.ts';

/** What is done in place of the right answer. */
type Lie = (response: ServerResponse, bytes: Buffer, request: IncomingMessage) => void;

const MEGABYTE = 1 << 20;

/** Writes without an end, for as long as somebody reads. */
const endless = (response: ServerResponse, piece = Buffer.alloc(65_536, 'x')): void => {
  if (!response.destroyed) response.write(piece, () => setImmediate(endless, response, piece));
};

/** Says which of many it was that failed. */
const told = async (what: string, action: () => Promise<void>): Promise<void> => {
  try {
    await action();
  } catch (error) {
    throw new Error(`${what}: ${(error as Error).message}`, { cause: error });
  }
};

suite('a registry that lies', { peers: ['moord'] }, (rig) => {
  let registry: TrickyRegistry;
  let count = 0;
  const tricks = new Map<string, Trick>();

  before(async () => {
    registry = await TrickyRegistry.start();
    registry.trick = (request, response, path) => {
      const repository =
        /^\/v2\/([^/]+)\//.exec(path)?.[1] ??
        new URL(request.url!, 'http://x').searchParams.get('scope')?.split(':')[1];
      return tricks.get(repository ?? '')?.(request, response, path) ?? false;
    };
  });
  after(async () => {
    await registry[Symbol.asyncDispose]();
  });

  interface Place {
    readonly name: string;
    readonly image: MadeImage;
    readonly layer: MadeImage['layers'][number];
    /** Requests for the layer, with the offset each began at. */
    readonly asked: string[];
  }

  /** An image nobody has yet, in a repository of its own, about whose parts the registry lies. */
  const lying = async (
    lies: { readonly layer?: Lie; readonly manifest?: Lie; readonly every?: Lie },
    size = 300_000,
  ): Promise<Place> => {
    count += 1;
    const repository = `r${count}`;
    const image = await makeImage([{ noise: randomBytes(size) }]);
    const layer = image.layers[0]!;
    registry.put(repository, 'x', image);
    const asked: string[] = [];
    tricks.set(repository, (request, response, path) => {
      const isLayer = path.endsWith(layer.digest);
      if (isLayer) asked.push(request.headers.range ?? 'all');
      const part = isLayer ? lies.layer : path.includes('/manifests/') ? lies.manifest : undefined;
      const lie = lies.every ?? part;
      lie?.(response, isLayer ? layer.bytes : image.manifest.bytes, request);
      // What has not answered leaves it to the registry.
      return response.headersSent || response.destroyed || response.writableEnded;
    });
    return { name: `${registry.host}/${repository}:x`, image, layer, asked };
  };

  const refuses = async (place: Place, code: Code, message: RegExp, options?: PullOptions): Promise<void> => {
    const failure = await failureOf(pull(rig.daemon, rig.ctr.namespace, place.name, options));
    assert.match(failure.message, message);
    assert.equal(failure.code, code, failure.message);
    assert.ok(!(await digestsOf(rig.ctr)).includes(place.layer.digest));
  };

  const bringsIt = async ({ name, layer }: Place): Promise<void> => {
    await pull(rig.daemon, rig.ctr.namespace, name);
    assert.ok((await digestsOf(rig.ctr)).includes(layer.digest));
  };

  const manifestHeaders = (bytes: Buffer) => ({
    'content-type': 'application/vnd.oci.image.manifest.v1+json',
    'content-length': bytes.length,
  });

  it('is told on, all at once, and nothing wrong that it sent is kept', { timeout: 120_000 }, async () => {
    const before = holdings(rig.daemon);
    const refusals: { readonly [what: string]: readonly [Parameters<typeof lying>[0], Code, RegExp] } = {
      'other bytes of the same length': [
        { layer: (response, bytes) => response.end(Buffer.alloc(bytes.length)) },
        Code.FailedPrecondition,
        /unexpected commit digest sha256:.*, expected sha256:/,
      ],
      'a body that ends early, each time at the same byte': [
        {
          layer: (response, bytes) =>
            response.writeHead(200, { 'content-length': 1000 }).end(bytes.subarray(0, 1000)),
        },
        Code.Unavailable,
        /ended at 1000 of \d+ bytes/,
      ],
      'a body without an end': [
        { layer: (response) => endless(response) },
        Code.FailedPrecondition,
        /sends more than its \d+ bytes/,
      ],
      'redirects in circles': [
        { layer: (response, _, { url }) => response.writeHead(307, { location: url! }).end() },
        Code.Unavailable,
        /redirected more than 10 times/,
      ],
      'a redirect to a file of the host': [
        { layer: (response) => response.writeHead(302, { location: 'file:///etc/shadow' }).end() },
        Code.Unavailable,
        /redirected to a malformed address/,
      ],
      'failures without an end': [
        {
          layer: (response) =>
            response.writeHead(500).end('{"errors": [{"code": "BROKEN\\n", "message": "\\u001b[31m"}]}'),
        },
        Code.Unavailable,
        /status 500: BROKEN\?: \?\[31m/,
      ],
      'that it is to be asked again in an hour': [
        { manifest: (response) => response.writeHead(429, { 'retry-after': '3600' }).end() },
        Code.Unavailable,
        /status 429/,
      ],
      'a web page in place of a manifest': [
        {
          manifest: (response) =>
            response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' }).end('<html>'),
        },
        Code.InvalidArgument,
        /media type "text\/html" is no image/,
      ],
      'a manifest larger than any': [
        {
          manifest: (response) =>
            response
              .writeHead(200, { ...manifestHeaders(Buffer.alloc(0)), 'content-length': 5 * MEGABYTE })
              .end(),
        },
        Code.FailedPrecondition,
        /a manifest has more than 4194304 bytes/,
      ],
      'a manifest without an end': [
        {
          manifest: (response, _, { method }) => {
            if (method === 'HEAD') response.writeHead(405).end();
            else
              endless(
                response.writeHead(200, { 'content-type': 'application/vnd.oci.image.manifest.v1+json' }),
              );
          },
        },
        Code.FailedPrecondition,
        /a manifest has more than 4194304 bytes/,
      ],
      'another manifest than the one it promised': [
        {
          manifest: (response, bytes, { method }) => {
            const other = Buffer.alloc(bytes.length, ' ');
            if (method === 'GET') response.writeHead(200, manifestHeaders(other)).end(other);
          },
        },
        Code.FailedPrecondition,
        /unexpected commit digest/,
      ],
      'connections that break at once': [
        { every: (response) => response.destroy() },
        Code.Unavailable,
        /other side closed|socket hang up|ECONNRESET/,
      ],
      'a part of the blob that nobody asked for': [
        {
          layer: (response, bytes) =>
            response
              .writeHead(206, { 'content-range': `bytes 7-9/${bytes.length}` })
              .end(bytes.subarray(7, 10)),
        },
        Code.DataLoss,
        /another range than was asked for/,
      ],
      'that it wants no kind of authentication there is': [
        {
          every: (response) => response.writeHead(401, { 'www-authenticate': 'Riddle answer="42"' }).end(),
        },
        Code.Unauthenticated,
        /asks for no authentication that is known here/,
      ],
      'that tokens are in a file': [
        {
          every: (response) =>
            response.writeHead(401, { 'www-authenticate': 'Bearer realm="file:///etc/shadow"' }).end(),
        },
        Code.Unauthenticated,
        /names no address to get a token from/,
      ],
    };
    const endpoints: {
      readonly [what: string]: readonly [(response: ServerResponse) => void, Code, RegExp];
    } = {
      down: [
        (response) => response.destroy(),
        Code.Unavailable,
        /\/token: (other side closed|socket hang up)/,
      ],
      broken: [(response) => response.writeHead(503).end(), Code.Unavailable, /\/token answered 503/],
      'talking rubbish': [
        (response) => response.end('{"token": 7'),
        Code.Unavailable,
        /\/token: the answer holds no token/,
      ],
      'smuggling headers': [
        (response) => response.end(JSON.stringify({ token: 'a\r\nx: y' })),
        Code.Unavailable,
        /\/token: the answer holds no token/,
      ],
      talkative: [(response) => endless(response), Code.Unavailable, /\/token: the answer is too long/],
    };
    const running = Object.entries(refusals).map(([what, [lies, code, message]]) =>
      told(what, async () => refuses(await lying(lies), code, message)),
    );
    for (const [what, [answer, code, message]] of Object.entries(endpoints)) {
      const lie: Lie = (response, _, { url }) => {
        if (url!.startsWith('/token')) answer(response);
        else {
          const realm = `Bearer realm="http://${registry.host}/token",service="here"`;
          response.writeHead(401, { 'www-authenticate': realm }).end();
        }
      };
      running.push(
        told(`a token endpoint that is ${what}`, async () =>
          refuses(await lying({ every: lie }), code, message),
        ),
      );
    }
    await Promise.all(running);
    assert.deepEqual(await leasesOf(rig.ctr), []);
    // Only what may be the beginning of the right bytes is kept: of the body that ended early.
    assert.deepEqual([...(await ingestsOf(rig.daemon, rig.ctr)).values()], [1000]);
    await giveUpIngests(rig.daemon, rig.ctr);
    await expectNothingStored(rig.daemon, rig.ctr);
    await expectNothingLeft(rig.daemon, before, { except: /^descriptor (socket|pipe)|process .*differ/ });
  });

  it('is put up with where that helps', { timeout: 120_000 }, async () => {
    const once = (lie: Lie): Lie => {
      let done = false;
      return (response, bytes, request) => {
        if (!done) lie(response, bytes, request);
        done = true;
      };
    };
    const half = (response: ServerResponse, bytes: Buffer) =>
      response
        .writeHead(200, { 'content-length': bytes.length })
        .write(bytes.subarray(0, bytes.length / 2), () => setTimeout(() => response.destroy(), 50));
    const running = [
      told('a connection that breaks midway goes on from there', async () => {
        const place = await lying({ layer: once(half) }, 2 * MEGABYTE);
        await bringsIt(place);
        assert.equal(place.asked.length, 2);
        assert.match(place.asked[1]!, /^bytes=[1-9]\d*-$/);
      }),
      told('or from the start, where ranges are ignored', async () => {
        const broken = once(half);
        const place = await lying({
          layer: (response, bytes, request) => {
            broken(response, bytes, request);
            if (!response.headersSent) response.writeHead(200, { 'content-length': bytes.length }).end(bytes);
          },
        });
        await bringsIt(place);
        assert.equal(place.asked.length, 2);
      }),
      told('a blob that drips', async () => {
        const drip = (response: ServerResponse, bytes: Buffer, at = 0): void => {
          const next = Math.min(at + 50_000, bytes.length);
          response.write(bytes.subarray(at, next), () => {
            if (next === bytes.length) response.end();
            else setTimeout(drip, 100, response, bytes, next);
          });
        };
        await bringsIt(await lying({ layer: (response, bytes) => drip(response, bytes) }));
      }),
      told('a redirect to another host, which is shown no secret', async () => {
        await using elsewhere = await TrickyRegistry.start();
        const place = await lying({
          layer: (response, _, { url }) =>
            response.writeHead(307, { location: `http://${elsewhere.host}${url!}?signature=x` }).end(),
        });
        elsewhere.put(/\/(r\d+):/.exec(place.name)![1]!, 'x', place.image);
        const hostsDir = join(rig.daemon.directory, 'hosts');
        mkdirSync(join(hostsDir, registry.host), { recursive: true });
        const toml = `server = "http://${registry.host}"\n[header]\nauthorization = "Bearer sesame"\nx-api-key = "sesame"\n`;
        writeFileSync(join(hostsDir, registry.host, 'hosts.toml'), toml);
        await pull(rig.daemon, rig.ctr.namespace, place.name, { hostsDir });
        assert.equal(elsewhere.requests.length, 1);
        assert.doesNotMatch(JSON.stringify(elsewhere.headers), /sesame/);
        assert.match(JSON.stringify(registry.headers), /sesame/);
      }),
    ];
    for (const [what, refusal] of Object.entries({
      'asked to come back in a second': () => [429, { 'retry-after': '1' }] as const,
      'asked to come back at a time': () =>
        [429, { 'retry-after': new Date(Date.now() + 2000).toUTCString() }] as const,
      'out of service for a moment': () => [503, {}] as const,
    })) {
      running.push(
        told(what, async () => {
          const lie = once((response) => {
            const [status, headers] = refusal();
            response.writeHead(status, headers).end();
          });
          const began = performance.now();
          await bringsIt(await lying({ manifest: lie }));
          if (refusal()[0] === 429)
            assert.ok(performance.now() - began >= 990, 'it waits as long as it is asked to');
        }),
      );
    }
    await Promise.all(running);
    await expectWhole(rig.daemon, rig.ctr);
    await expectNothingStored(rig.daemon, rig.ctr);
  });

  it('two pulls that want the same content ask for it once', async () => {
    const slowly: Lie = (response, bytes) => {
      response.writeHead(200, { 'content-length': bytes.length }).write(bytes.subarray(0, 1000));
      setTimeout(() => response.end(bytes.subarray(1000)), 300);
    };
    const place = await lying({ layer: slowly });
    const repository = /\/(r\d+):/.exec(place.name)![1]!;
    registry.put(repository, 'y', place.image);
    const names = [place.name, place.name, place.name.replace(/x$/, 'y')];
    await Promise.all(names.map((name) => pull(rig.daemon, rig.ctr.namespace, name)));
    assert.deepEqual(place.asked, ['all']);
    const gets = registry.requests.filter((request) => request.includes(`GET /v2/${repository}/`));
    assert.deepEqual(gets, [...new Set(gets)]);
    await expectNothingStored(rig.daemon, rig.ctr);
  });

  it('a client that holds a blob without writing it does not hold up a pull', async () => {
    const place = await lying({});
    using connection = rig.daemon.connect();
    const ref = `layer-${place.layer.digest}`;
    // ctr ingests what it reads from its stdin, which says nothing.
    const holder = rig.ctr.spawn(['content', 'ingest', ref], ['pipe', 'ignore', 'inherit']);
    holder.stdin!.write('x');
    const content = connection.service(ContentDefinition, rig.ctr.namespace);
    try {
      await eventually('the client writes', async () => (await content.status({ ref })).status !== undefined);
      await bringsIt(place);
    } finally {
      holder.kill('SIGKILL');
    }
    await rig.ctr.call(['content', 'rm', ref]);
    await content.abort({ ref });
    await expectNothingStored(rig.daemon, rig.ctr);
  });

  it('wrong bytes that ctr has fetched are refused as well', async () => {
    const place = await lying({ layer: (response, bytes) => response.end(Buffer.alloc(bytes.length)) });
    const outcome = await rig.ctr.call(['images', 'pull', '--plain-http', place.name]);
    assert.equal(outcome.code, 1);
    assert.match(outcome.stderr, /unexpected commit digest .*: failed precondition/);
    assert.ok(!(await digestsOf(rig.ctr)).includes(place.layer.digest));
    await expectNothingStored(rig.daemon, rig.ctr);
  });
});
