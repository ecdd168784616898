/** The daemon's memory does not grow with what it moves: everything streams. */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { type Server, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, it } from 'node:test';
import { entryOf } from '../daemon/diff/fixture.test.ts';
import { OCI_CONFIG, OCI_LAYER, OCI_MANIFEST } from '../daemon/distribution/media-types.ts';
import { type Piece, descriptorOf, jsonPiece } from '../daemon/distribution/testing/image.ts';
import { paddingOf } from '../daemon/diff/archive/writer.ts';
import { suite } from './harness/peers.ts';
import { expectNothingStored } from './harness/stored.ts';
import { pull } from './harness/transfer.ts';

const MEGABYTE = 1 << 20;

/** A layer with one file of so many times the same noise; never whole in memory. */
class Layer {
  readonly size: number;
  readonly digest: string;
  readonly #pieces: () => Generator<Buffer>;

  constructor(megabytes: number) {
    const block = randomBytes(MEGABYTE);
    const head = entryOf('noise', { size: megabytes * MEGABYTE });
    const end = Buffer.concat([paddingOf(megabytes * MEGABYTE), Buffer.alloc(1024)]);
    this.#pieces = function* () {
      yield head;
      for (let index = 0; index < megabytes; index += 1) yield block;
      yield end;
    };
    this.size = head.length + megabytes * MEGABYTE + end.length;
    const hash = createHash('sha256');
    for (const piece of this.#pieces()) hash.update(piece);
    this.digest = `sha256:${hash.digest('hex')}`;
  }

  pieces(): Generator<Buffer> {
    return this.#pieces();
  }
}

suite('memory', { peers: ['moord'] }, (rig) => {
  const small = new Map<string, Piece>();
  const layers = new Map<string, Layer>();
  let server: Server;

  before(async () => {
    server = createServer((request, response) => {
      const path = request.url!;
      const layer = layers.get(path.slice(path.lastIndexOf('/') + 1));
      const piece = small.get(path.slice(path.lastIndexOf('/') + 1));
      if (piece !== undefined) {
        response.writeHead(200, { 'content-type': piece.mediaType, 'content-length': piece.bytes.length });
        response.end(request.method === 'HEAD' ? '' : piece.bytes);
      } else if (layer !== undefined) {
        response.writeHead(200, { 'content-length': layer.size });
        const pieces = layer.pieces();
        const next = (): void => {
          const { done, value } = pieces.next();
          if (done === true) response.end();
          else response.write(value, next);
        };
        next();
      } else response.writeHead(404).end();
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  });
  after(() => {
    server.closeAllConnections();
    server.close();
  });

  const publish = (tag: string, megabytes: number): string => {
    const layer = new Layer(megabytes);
    const rootfs = { type: 'layers', diff_ids: [layer.digest] };
    const config = jsonPiece(OCI_CONFIG, { os: 'linux', architecture: 'amd64', rootfs });
    const { digest, size } = layer;
    const manifest = jsonPiece(OCI_MANIFEST, {
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: descriptorOf(config),
      layers: [{ mediaType: OCI_LAYER, digest, size }],
    });
    layers.set(digest, layer);
    small.set(config.digest, config);
    for (const name of [tag, manifest.digest]) small.set(name, manifest);
    return `127.0.0.1:${(server.address() as AddressInfo).port}/large:${tag}`;
  };

  /** The most memory that the daemon has had while this went on, in bytes (proc_pid_clear_refs(5)). */
  const peakOf = async (work: () => Promise<void>): Promise<number> => {
    writeFileSync(`/proc/${rig.daemon.pid}/clear_refs`, '5');
    await work();
    const status = readFileSync(`/proc/${rig.daemon.pid}/status`, 'utf8');
    return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)![1]) * 1024;
  };

  it('a pull of 300 MB takes no more than one of 30', { timeout: 120_000 }, async (context) => {
    const { namespace } = rig.ctr;
    const [little, much] = [publish('little', 30), publish('much', 300)];
    const first = await peakOf(() => pull(rig.daemon, namespace, little, { timeout: 60_000 }));
    const second = await peakOf(() => pull(rig.daemon, namespace, much, { timeout: 100_000 }));
    const told = (bytes: number) => `${(bytes / MEGABYTE).toFixed(0)} MiB`;
    context.diagnostic(`30 MB: ${told(first)}, 300 MB: ${told(second)}`);
    assert.ok(second - first < 100 * MEGABYTE, `${told(first)} for 30 MB and ${told(second)} for 300 MB`);
    await expectNothingStored(rig.daemon, rig.ctr);
  });
});
