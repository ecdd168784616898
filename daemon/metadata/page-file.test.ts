import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Namespace } from '../../proto/gen/containerd/services/namespaces.ts';
import { Database } from './database.ts';
import { PageFile, type Snapshot } from './page-file.ts';

const PAGE = 4096;
const RECORDS = 400;
/** More than a page takes. */
const LARGE = 9000;
/** Where the first pages have the number of the last one. */
const LAST_PAGE = 24 + 24 + 2 * 48;

let directory: string;
let whole: Buffer;

before(async () => {
  directory = mkdtempSync(join(tmpdir(), 'moor-pages-'));
  const database = await Database.open(directory);
  for (let part = 0; part < 4; part += 1) {
    await database.update((transaction) => {
      for (let index = 0; index < RECORDS / 4; index += 1) {
        const name = `${part}-${index}`;
        const labels = { l: 'x'.repeat(index === 7 ? LARGE : 100) };
        transaction.put(['n', 'kind', name], Namespace, { name, labels });
      }
    });
  }
  await database.close();
  const file = readFileSync(join(directory, 'data.mdb'));
  const last = Math.max(...[0, PAGE].map((meta) => Number(file.readBigUInt64LE(meta + LAST_PAGE))));
  // Without the room behind it.
  whole = file.subarray(0, (last + 1) * PAGE);
});
after(() => rmSync(directory, { recursive: true }));

/** What is read of the file with these bytes. */
function readOf(bytes: Buffer): Snapshot {
  writeFileSync(join(directory, 'data.mdb'), bytes);
  return PageFile.read(directory)!.newest();
}

function withPage(number: number, change: (page: Buffer) => void): Buffer {
  const bytes = Buffer.from(whole);
  change(bytes.subarray(number * PAGE, (number + 1) * PAGE));
  return bytes;
}

/** The pages whose damage is seen when they are emptied, by their kind. */
function pagesInUse(): Map<number, number> {
  const pages = new Map<number, number>();
  for (let page = 2; (page + 1) * PAGE <= whole.length; page += 1) {
    const empty = readOf(withPage(page, (bytes) => bytes.fill(0)));
    if (empty.damages.length > 0) pages.set(page, whole.readUInt16LE(page * PAGE + 18));
  }
  return pages;
}

test('a sound store has all of its records and no damage', () => {
  const { records, entries, damages } = readOf(whole);
  assert.deepEqual(damages, []);
  assert.equal(records.length, RECORDS + 1);
  assert.equal(entries, RECORDS + 1);
  const large = records.find(({ key }) => key.includes('2-7') && !key.includes('2-7x'));
  assert.ok(large !== undefined && large.value.length > LARGE);
});

test('every page that is in use is known by its number when it is emptied, and the others are read', () => {
  const pages = pagesInUse();
  assert.deepEqual(new Set(pages.values()), new Set([1, 2, 4]), 'branches, leaves and large values');
  for (const [page, kind] of pages) {
    const { records, damages } = readOf(withPage(page, (bytes) => bytes.fill(0)));
    assert.deepEqual(
      damages.map((damage) => damage.page),
      [page],
    );
    if (kind !== 1) assert.ok(records.length > RECORDS / 2, `${records.length} records without page ${page}`);
  }
});

test('a file that ends too early is damaged, and so is one of another layout', () => {
  for (const length of [whole.length >> 1, 3 * PAGE, PAGE + 100, 40]) {
    writeFileSync(join(directory, 'data.mdb'), whole);
    truncateSync(join(directory, 'data.mdb'), length);
    assert.notDeepEqual(PageFile.read(directory)!.newest().damages, [], `${length} bytes`);
  }
  const newer = Buffer.from(whole);
  for (const page of [0, 1]) newer.writeUInt32LE(3, page * PAGE + 28);
  assert.match(readOf(newer).damages[0]!.problem, /its layout is of version 3, not 2/);
});

test('whatever bytes there are, reading ends, and what it takes for sound can be opened', async () => {
  let opened = 0;
  for (let round = 0; round < 600; round += 1) {
    // A fixed sequence, so that a failure can be repeated.
    const random = (below: number, salt: number): number =>
      ((round * 2654435761 + salt * 40503) >>> 7) % below;
    const bytes = Buffer.from(whole);
    for (let change = 0; change < 1 + (round % 4); change += 1)
      bytes[random(bytes.length, change)] = random(256, change + 9);
    const { damages } = readOf(bytes);
    if (damages.length > 0 || round % 10 !== 0) continue;
    const database = await Database.open(directory);
    opened += [...database.rest(['n', 'kind'])].length > 0 ? 1 : 0;
    await database.close();
  }
  assert.ok(opened > 0);
});

test('the daemon refuses a damaged store by page, and says what can be done', async () => {
  const [page] = pagesInUse().keys();
  readOf(withPage(page!, (bytes) => bytes.fill(0xff)));
  await assert.rejects(Database.open(directory), (error: Error) => {
    assert.match(error.message, new RegExp(`data\\.mdb is damaged: page ${page}: `));
    assert.match(error.message, /moord check.*backup/);
    return true;
  });
});
