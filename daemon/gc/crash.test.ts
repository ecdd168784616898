/** kill -9 in the middle of pulls and sweeps, over and over on one store. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { NamespacedContent } from '../content/namespaced-content.ts';
import { parseDigest } from '../content/digest.ts';
import { ContentStore } from '../content/store.ts';
import { parseNamespace } from '../identifiers.ts';
import { ImageStore } from '../images/store.ts';
import { openLog } from '../log.ts';
import { MetadataStore } from '../metadata/store.ts';
import { Collector } from './collector.ts';
import { contentResource, ingestResource } from './content.ts';
import { imageResource, leaseResource } from './records.ts';
import { referencesOf } from './labels.ts';

const program = fileURLToPath(new URL('testing/sweeper.ts', import.meta.url));
const namespace = parseNamespace('killed');
const ROUNDS = Number(process.env['MOOR_CRASH_ROUNDS'] ?? 6);

/** Numbers in [0, 1) that a seed repeats (mulberry32). */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

async function killSomewhere(directory: string, seed: string, milliseconds: number): Promise<void> {
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', program, directory, seed], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [first] = await Promise.race([once(child.stdout, 'data'), once(child, 'exit')]);
  assert.ok(Buffer.isBuffer(first), 'the sweeper did not begin');
  await delay(milliseconds);
  child.kill('SIGKILL');
  await once(child, 'exit');
}

test('kill -9 in the middle of pulls and sweeps leaves a store that is whole, and loses nothing', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'moor-crash-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const seed = Number(process.env['MOOR_SEED'] ?? Date.now() % 1e6);
  t.diagnostic(`seed ${seed}`);
  const next = random(seed);
  for (let round = 0; round < ROUNDS; round += 1) {
    const milliseconds = Math.round(next() * 400);
    await killSomewhere(directory, String(round), milliseconds);
    const metadata = await MetadataStore.open(join(directory, 'metadata'));
    const content = new NamespacedContent(
      metadata.database,
      await ContentStore.open(join(directory, 'content')),
    );
    const images = new ImageStore(metadata.database, { publish: () => undefined });
    try {
      const where = `seed ${seed}, round ${round}, killed after ${milliseconds} ms`;
      // Every record has its bytes, and they are right.
      for (const { digest, size } of content.list(namespace)) {
        const bytes = await content.read(namespace, parseDigest(digest), 1e6);
        assert.equal(BigInt(bytes.length), size, where);
      }
      // Every image is whole.
      for (const { target } of images.list(namespace)) {
        const manifest = content.info(namespace, parseDigest(target!.digest));
        for (const { id } of referencesOf(manifest.labels)) content.info(namespace, parseDigest(id));
      }
      assert.ok(images.find(namespace, 'kept'), where);

      for (const { name } of images.list(namespace))
        if (name !== 'kept') await images.delete(namespace, name);
      for (const { ref } of content.records.ingests(namespace)) await content.abort(namespace, ref);
      const resources = [
        leaseResource,
        imageResource(() => undefined),
        ingestResource(content),
        contentResource(content),
      ];
      await new Collector(metadata.database, resources, openLog('fatal')).collect();
      assert.equal(content.list(namespace).length, 3, where);
      assert.equal(readdirSync(join(directory, 'content/blobs/sha256')).length, 3, where);
      assert.deepEqual(readdirSync(join(directory, 'content/ingest')), [], where);
    } finally {
      await content.close();
      await metadata.close();
    }
  }
});
