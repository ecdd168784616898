/**
 * What comes from files and from other programs, made up at random from what it is made of: it is understood, or refused by an error of
 * its kind, and nothing else. The seed of a failure is printed with it; `TEST_SEED` sets it, `FUZZ_RUNS` how many there are.
 */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import * as fc from 'fast-check';
import { stringify } from 'smol-toml';
import { parseNetworkList } from '../../daemon/cni/network-list.ts';
import { resultOf } from '../../daemon/cni/result.ts';
import { ConfigError, defaultConfig, parseConfig } from '../../daemon/config.ts';
import { ArchiveReader, type ArchiveSink } from '../../daemon/diff/archive/reader.ts';
import { childrenOf, parseDocument } from '../../daemon/distribution/graph.ts';
import { hostsOf } from '../../daemon/distribution/hosts.ts';
import { OCI_INDEX, OCI_MANIFEST } from '../../daemon/distribution/media-types.ts';
import { parseFilters } from '../../daemon/filters/filter.ts';
import { formatBootstrap, parseBootstrap } from '../../daemon/runtime/bootstrap.ts';
import { formatExit, parseExit } from '../../daemon/runtime/exit.ts';
import { parseBootstrap as parseStart } from '../../shim/bootstrap.ts';
import { RpcError } from '../../ttrpc/errors.ts';
import { archiveOf } from '../harness/image.ts';

const numRuns = Number(process.env['FUZZ_RUNS'] ?? 400);
const seed = process.env['TEST_SEED'];
const settings = { numRuns, ...(seed === undefined ? {} : { seed: Number(seed) }) };

/** What an error says that nobody has thought of. */
const nonsense = /Cannot read|is not a function|is not iterable|undefined \(/;

/** Understood, or refused by an error of the kind that tells its maker. */
function isRefused(kind: new (...args: never[]) => Error, parse: () => unknown): void {
  try {
    parse();
  } catch (error) {
    assert.ok(error instanceof kind, `${String(error)}\n${(error as Error).stack}`);
    assert.doesNotMatch(error.message, nonsense);
  }
}

const text = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 12 }),
  fc.constantFrom('', '..', '/', 'a\0b', 'x'.repeat(3000)),
);
const json = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    text,
    fc.double(),
    fc.integer(),
    fc.boolean(),
    fc.constant(null),
    fc.array(tie('value'), { maxLength: 4 }),
    fc.dictionary(text, tie('value'), { maxKeys: 4 }),
  ),
})).value;

/** An object with some of the keys, each with what belongs there or with anything. */
const objectOf = (fields: { readonly [key: string]: fc.Arbitrary<unknown> }): fc.Arbitrary<object> =>
  fc.record(
    Object.fromEntries(
      Object.entries(fields).map(([key, value]) => [
        key,
        fc.oneof({ weight: 5, arbitrary: value }, { weight: 1, arbitrary: json }),
      ]),
    ),
    { requiredKeys: [] },
  );

const digest = fc.constantFrom(`sha256:${'a'.repeat(64)}`, 'sha256:../../etc', 'md5:x', '');
const descriptor = objectOf({
  mediaType: fc.constantFrom(OCI_INDEX, OCI_MANIFEST, 'x'),
  digest,
  size: fc.oneof(fc.integer(), fc.double()),
  annotations: fc.dictionary(text, text),
  platform: objectOf({ os: text, architecture: text, variant: text, 'os.version': text }),
});

test('manifests, indexes and configurations', () => {
  const document = objectOf({
    schemaVersion: fc.integer(),
    mediaType: text,
    config: descriptor,
    layers: fc.array(descriptor, { maxLength: 5 }),
    manifests: fc.array(descriptor, { maxLength: 5 }),
    subject: descriptor,
  });
  fc.assert(
    fc.property(
      fc.oneof(document, json),
      fc.constantFrom(OCI_INDEX, OCI_MANIFEST, 'x'),
      (value, mediaType) => {
        const bytes = Buffer.from(JSON.stringify(value) ?? '');
        const parent = {
          mediaType,
          digest: `sha256:${'b'.repeat(64)}`,
          size: BigInt(bytes.length),
          annotations: {},
        };
        isRefused(RpcError, () => childrenOf(parent, bytes));
        isRefused(RpcError, () => parseDocument(parent.digest, bytes));
      },
    ),
    settings,
  );
});

test('what CNI plugins answer, and lists of networks', () => {
  const route = objectOf({ dst: text, gw: text });
  const ip = objectOf({
    address: text,
    gateway: text,
    interface: fc.integer(),
    ip: text,
    routes: fc.array(route),
  });
  const result = objectOf({
    cniVersion: text,
    interfaces: fc.array(objectOf({ name: text, mac: text, sandbox: text })),
    ips: fc.array(ip),
    routes: fc.array(route),
    dns: objectOf({ nameservers: fc.array(text), domain: text }),
    ip4: ip,
    ip6: ip,
  });
  const list = objectOf({
    cniVersion: text,
    name: text,
    plugins: fc.array(objectOf({ type: text, ipam: json })),
  });
  fc.assert(
    fc.property(result, fc.oneof(list, json), (answer, config) => {
      isRefused(RpcError, () => resultOf(answer as never));
      isRefused(Error, () => parseNetworkList(JSON.stringify(config) ?? '', 'fuzz'));
    }),
    settings,
  );
});

/** Anything that TOML has, at the place of something that is there. */
function mutated(table: object, path: number, value: unknown): object {
  const keys = Object.keys(table);
  if (keys.length === 0) return { x: value };
  const key = keys[path % keys.length]!;
  const old = (table as Record<string, unknown>)[key];
  const isTable = typeof old === 'object' && old !== null && !Array.isArray(old);
  return { ...table, [key]: isTable && path % 3 > 0 ? mutated(old, Math.floor(path / 3), value) : value };
}

const tomlValue = fc.oneof(
  text,
  fc.integer(),
  fc.boolean(),
  fc.array(text),
  fc.dictionary(text, text),
  fc.double({ noNaN: true }),
);

test('the configuration', () => {
  fc.assert(
    fc.property(fc.nat(), tomlValue, fc.nat(100), text, (path, value, cut, piece) => {
      const toml = stringify(mutated(defaultConfig(), path, value));
      isRefused(ConfigError, () => parseConfig(toml, 'fuzz'));
      const at = Math.floor((toml.length * cut) / 100);
      isRefused(ConfigError, () => parseConfig(toml.slice(0, at) + piece + toml.slice(at), 'fuzz'));
    }),
    settings,
  );
});

const folder = mkdtempSync(join(tmpdir(), 'moor-fuzz-'));
after(() => rmSync(folder, { recursive: true }));

test('hosts.toml', async () => {
  mkdirSync(join(folder, '_default'));
  const path = join(folder, '_default/hosts.toml');
  // Written line by line from few words, so that its making ends for every seed.
  const word = fc.constantFrom(
    '"https://a.test"',
    '"b.test:5000/v2/"',
    '"pull"',
    '"push"',
    '"missing.crt"',
    '""',
    '"x\\u0000"',
  );
  const other = fc.constantFrom(
    'true',
    'false',
    '1',
    '1.5',
    '-inf',
    '{}',
    '{ a = "b" }',
    '1979-05-27',
    '[1]',
    '"',
  );
  const list = fc.array(word, { maxLength: 3 }).map((words) => `[${words.join(', ')}]`);
  const value = fc.oneof(
    word,
    other,
    list,
    list.map((inner) => `[${inner}]`),
  );
  const key = fc.constantFrom(
    'server',
    'capabilities',
    'ca',
    'client',
    'skip_verify',
    'header',
    'override_path',
    'host',
    'x-custom',
  );
  const head = fc.constantFrom(
    '[host."https://a.test"]',
    '[host."b.test:5000"]',
    '[host."not a url"]',
    '[host.""]',
    '[host]',
    '[header]',
    '[[host]]',
    '[host."https://a.test".header]',
  );
  const line = fc.oneof(
    { weight: 3, arbitrary: fc.tuple(key, value).map(([name, given]) => `${name} = ${given}`) },
    { weight: 1, arbitrary: head },
  );
  await fc.assert(
    fc.asyncProperty(fc.array(line, { maxLength: 8 }), async (lines) => {
      writeFileSync(path, lines.join('\n'));
      await hostsOf('registry.test', { directory: folder }).catch((error: unknown) => {
        assert.ok(error instanceof RpcError, String(error));
        assert.match(error.message, /hosts\.toml: /);
        assert.doesNotMatch(error.message, nonsense);
      });
    }),
    settings,
  );
});

test('records of bundles, and what a daemon tells a shim', () => {
  const exit = formatExit({ pid: 4, status: 1, exitedAt: { seconds: 1n, nanos: 5 }, published: true });
  const bootstrap = formatBootstrap({ runtime: 'x', binary: '', apiVersion: 3, address: '/s' });
  const record = objectOf({
    version: fc.integer({ min: -1, max: 3 }),
    pid: fc.integer(),
    status: fc.double(),
    exitedAt: fc.constantFrom('2026-01-01T00:00:00Z', 'x'),
    runtime: text,
    binary: text,
    apiVersion: fc.integer({ min: 1, max: 4 }),
    address: text,
  });
  const spoilt = fc
    .tuple(fc.constantFrom(exit, bootstrap), fc.nat(80), text)
    .map(([whole, at, piece]) => whole.slice(0, at) + piece + whole.slice(at + 1));
  fc.assert(
    fc.property(
      fc.oneof(
        record.map((value) => JSON.stringify(value)),
        spoilt,
        json.map((value) => JSON.stringify(value) ?? ''),
      ),
      (given) => {
        isRefused(RpcError, () => parseExit(given, 'exit.json'));
        isRefused(RpcError, () => parseBootstrap(given, 'bootstrap.json'));
      },
    ),
    settings,
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      isRefused(Error, () => parseStart(bytes, { id: 'a', namespace: 'b' }));
    }),
    settings,
  );
});

test('filters', () => {
  const piece = fc.oneof(
    text,
    fc.constantFrom('labels."a"', '==', '!=', '~=', ',', '"', '.', 'name', '(', '[', '/x/', '\\', "'"),
  );
  fc.assert(
    fc.property(
      fc.array(
        fc.array(piece, { maxLength: 8 }).map((parts) => parts.join('')),
        { maxLength: 3 },
      ),
      (filters) => {
        isRefused(RpcError, () => parseFilters(filters)(([first]) => first));
      },
    ),
    settings,
  );
});

test('archives', () => {
  mkdirSync(join(folder, 'tree/deep'), { recursive: true });
  writeFileSync(join(folder, 'tree/deep/file'), 'some content');
  writeFileSync(join(folder, 'tree', 'l'.repeat(180)), 'a long name');
  const archive = archiveOf(join(folder, 'tree'));
  const sink: ArchiveSink = { entry: () => {}, data: () => {}, finish: () => {} };
  const change = fc.tuple(
    fc.nat(archive.length - 1),
    fc.oneof(fc.nat(255), fc.constantFrom(0, 0x30, 0x37, 0x80, 0xff)),
  );
  fc.assert(
    fc.property(
      fc.array(change, { maxLength: 12 }),
      fc.nat(archive.length),
      fc.integer({ min: 1, max: 3000 }),
      fc.boolean(),
      (changes, length, step, mends) => {
        const bytes = Buffer.from(archive.subarray(0, changes.length % 3 === 0 ? length : archive.length));
        for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
        // With sums that are right, more than the first look at a header is reached.
        if (mends)
          for (let at = 0; at + 512 <= bytes.length; at += 512) mendSum(bytes.subarray(at, at + 512));
        isRefused(RpcError, () => {
          const reader = new ArchiveReader(sink);
          for (let at = 0; at < bytes.length; at += step) reader.push(bytes.subarray(at, at + step));
          reader.end();
        });
      },
    ),
    settings,
  );
});

/** Writes the sum of a tar header that has one. */
function mendSum(block: Buffer): void {
  if (block.toString('latin1', 257, 262) !== 'ustar') return;
  block.fill(' ', 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
}
