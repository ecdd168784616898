/** A disk that fills up: a small ext4 in a file. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Code, isCode } from '../../ttrpc/errors.ts';
import { parseNamespace } from '../identifiers.ts';
import { MetadataStore } from '../metadata/store.ts';
import { NamespacedContent } from './namespaced-content.ts';
import { ContentStore } from './store.ts';

const here = parseNamespace('here');
const MEGABYTE = 1 << 20;

function smallDisk(t: TestContext, megabytes: number): string {
  const directory = mkdtempSync(join(tmpdir(), 'moor-full-'));
  const image = join(directory, 'disk');
  const mounted = join(directory, 'mnt');
  mkdirSync(mounted);
  writeFileSync(image, '');
  truncateSync(image, megabytes * MEGABYTE);
  execFileSync('mkfs.ext4', ['-q', '-m', '0', image]);
  execFileSync('mount', ['-o', 'loop', image, mounted]);
  t.after(() => {
    execFileSync('umount', ['-l', mounted]);
    rmSync(directory, { recursive: true });
  });
  return mounted;
}

const full = (error: unknown): boolean =>
  isCode(error, Code.ResourceExhausted) && /no space left on device/i.test(error.message);

test('a full disk is a clear error; what is stored stays, and writing goes on where it was when there is room', async (t) => {
  const disk = smallDisk(t, 24);
  const ballast = join(disk, 'ballast');
  writeFileSync(ballast, Buffer.alloc(10 * MEGABYTE));
  const metadata = await MetadataStore.open(join(disk, 'metadata'));
  const content = new NamespacedContent(metadata.database, await ContentStore.open(join(disk, 'content')));
  try {
    const stored = randomBytes(MEGABYTE);
    const digest = await content.put(here, 'stored', stored, { labels: { a: 'b' } });

    const bytes = randomBytes(10 * MEGABYTE);
    const writer = await content.writer(here, 'large', { total: bytes.length });
    const write = async (): Promise<void> => {
      for (let at = 0; at < bytes.length; at += MEGABYTE)
        await writer.write(bytes.subarray(at, at + MEGABYTE));
      await writer.flush();
    };
    await assert.rejects(write(), (error) => full(error) && /content\/ingest\/.*\/data/.test(String(error)));
    await assert.rejects(writer.write(bytes), full);
    await writer.close();
    assert.deepEqual(await content.read(here, digest, MEGABYTE), stored);

    // Not a block is left for metadata either.
    const filler = join(disk, 'filler');
    assert.throws(() => writeFileSync(filler, Buffer.alloc(24 * MEGABYTE)), { code: 'ENOSPC' });
    await assert.rejects(async () => {
      // Until the room is used up that the database keeps for itself.
      for (let index = 0; index < 2000; index += 1)
        await metadata.leases.create(here, `l${index}`, { label: 'v'.repeat(4000) });
    }, full);
    assert.deepEqual(await content.read(here, digest, MEGABYTE), stored);
    rmSync(filler);
    rmSync(ballast);

    await content.update(here, { ...content.info(here, digest), labels: { after: 'wards' } });
    const resumed = await content.writer(here, 'large', { total: bytes.length });
    assert.ok(resumed.offset > MEGABYTE, `resumed at ${resumed.offset}`);
    assert.equal((await content.status(here, 'large')).offset, resumed.offset);
    await resumed.write(bytes.subarray(resumed.offset));
    const info = await resumed.commit({ size: bytes.length });
    assert.deepEqual(await content.read(here, info.digest as typeof digest, bytes.length), bytes);
  } finally {
    await content.close();
    await metadata.close();
  }
});

test('on a full disk, deleting works, and what it frees can be used', async (t) => {
  const disk = smallDisk(t, 24);
  const metadata = await MetadataStore.open(join(disk, 'metadata'));
  const content = new NamespacedContent(metadata.database, await ContentStore.open(join(disk, 'content')));
  try {
    const digests = [];
    for (let index = 0; index < 20; index += 1)
      digests.push(await content.put(here, `b${index}`, randomBytes(10_000), { labels: { a: 'b' } }));
    for (const size of [24 * MEGABYTE, 4096]) {
      const fill = (): void => {
        for (let count = 0; ; count += 1)
          writeFileSync(join(disk, `filler-${size}-${count}`), Buffer.alloc(size, 1));
      };
      assert.throws(fill, { code: 'ENOSPC' });
    }
    for (const digest of digests) {
      await content.delete(here, digest);
      await content.store.remove(digest, () => false);
    }
    assert.deepEqual(content.list(here), []);
    await content.put(here, 'more', randomBytes(100_000));
  } finally {
    await content.close();
    await metadata.close();
  }
});
