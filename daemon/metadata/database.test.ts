import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { open } from 'lmdb';
import { Namespace } from '../../proto/gen/containerd/services/namespaces.ts';
import { Code, isCode } from '../../ttrpc/errors.ts';
import { Database } from './database.ts';

function directory(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'moor-metadata-'));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

test('a store of a newer version is left alone', async (t) => {
  const path = directory(t);
  const store = open({ path, encoding: 'binary' });
  await store.put(['', 'format'], Buffer.from('2'));
  await store.close();
  await assert.rejects(
    Database.open(path),
    /was written by a newer version of Moor \(format 2, this one knows 1\)/,
  );
});

test('what was promised survives kill -9, and what was half-done is not there', async (t) => {
  const path = directory(t);
  // Writes pairs of records in one transaction each, and prints each number once it is promised.
  const program = `
    import { Database } from ${JSON.stringify(join(import.meta.dirname, 'database.ts'))};
    import { Namespace } from ${JSON.stringify(join(import.meta.dirname, '../../proto/gen/containerd/services/namespaces.ts'))};
    const database = await Database.open(${JSON.stringify(path)});
    for (let i = 0; ; i += 1) {
      const name = String(i).padStart(6, '0');
      await database.update((transaction) => {
        for (const half of ['a', 'b']) transaction.put(['x', half, name], Namespace, { name, labels: { l: 'x'.repeat(2000) } });
      });
      process.stdout.write(i + '\\n');
    }`;
  const script = join(path, 'writer.ts');
  writeFileSync(script, program);
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let promised = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    promised += text;
    if (promised.split('\n').length > 100) child.kill('SIGKILL');
  });
  await once(child, 'close');
  const last = Number(promised.trimEnd().split('\n').at(-1));
  const database = await Database.open(path);
  const names = (half: string): string[] => [...database.rest(['x', half])].map(([name]) => name!);
  assert.deepEqual(names('a'), names('b'));
  assert.ok(names('a').length > last, `${names('a').length} records of ${last + 1} promised ones`);
  await database.close();
});

test('a full disk is called one; what is stored stays readable, and room is taken up again', async (t) => {
  const path = mkdtempSync(join(tmpdir(), 'moor-metadata-'));
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', path]);
  t.after(() => {
    execFileSync('umount', [path]);
    rmSync(path, { recursive: true });
  });
  const database = await Database.open(join(path, 'metadata'));
  // LMDB writes of this on stderr as well.
  const filler = join(path, 'filler');
  writeFileSync(filler, Buffer.alloc(4_000_000));
  const put = (name: string): Promise<void> =>
    database.update((transaction) =>
      transaction.put(['x', 'y', name], Namespace, { name, labels: { l: 'x'.repeat(20_000) } }),
    );
  let stored = 0;
  await assert.rejects(
    async () => {
      for (; stored < 1000; stored += 1) await put(String(stored));
    },
    (error) => isCode(error, Code.ResourceExhausted) && /No space left on device/.test(error.message),
  );
  await assert.rejects(put('again'), (error) => isCode(error, Code.ResourceExhausted));
  assert.equal([...database.rest(['x', 'y'])].length, stored);
  assert.equal(database.get(['x', 'y', '0'], Namespace)!.name, '0');
  rmSync(filler);
  await put('again');
  assert.equal(database.get(['x', 'y', 'again'], Namespace)!.name, 'again');
  await database.close();
});

test('a write that cannot be made fails its transaction, and leaves nothing of it', async (t) => {
  const database = await Database.open(directory(t));
  const outcome = database.update((transaction) => {
    transaction.put(['x', 'y', 'first'], Namespace, { name: 'first', labels: {} });
    transaction.put(['x', 'y', 'k'.repeat(4000)], Namespace, { name: 'second', labels: {} });
  });
  await assert.rejects(
    outcome,
    (error) => isCode(error, Code.Internal) && /cannot write metadata/.test(error.message),
  );
  assert.deepEqual([...database.rest(['x', 'y'])], []);
  await database.close();
});

test('what was asked for before closing is done', async (t) => {
  const path = directory(t);
  const database = await Database.open(path);
  const done = database.update((transaction) =>
    transaction.put(['x', 'y', 'z'], Namespace, { name: 'z', labels: {} }),
  );
  await database.close();
  await done;
  const again = await Database.open(path);
  assert.equal(again.get(['x', 'y', 'z'], Namespace)!.name, 'z');
  await again.close();
});
