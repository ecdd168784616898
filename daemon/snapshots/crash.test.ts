import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Kind } from './snapshotter.ts';
import { backends } from './snapshotters.ts';
import { FILES, folderOf } from './testing/churn.ts';
import { LoopFilesystem } from './testing/loop.ts';
import { Random } from './testing/random.ts';
import { Stage, namespace } from './testing/stage.ts';

const program = fileURLToPath(new URL('testing/churn.ts', import.meta.url));
const KILLS = 6;

/** Lets a process make snapshots, and kills it within a few milliseconds of its n-th word. @returns what it said */
async function runAndKill(name: string, stage: Stage, seed: number, random: Random): Promise<string[]> {
  const process_ = spawn(process.execPath, [program, name, stage.directory, stage.root, String(seed)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exit = once(process_, 'exit');
  const lines: string[] = [];
  const last = 1 + random.below(80);
  for await (const line of createInterface({ input: process_.stdout })) {
    lines.push(line);
    if (lines.length !== last) continue;
    const until = performance.now() + random.below(15_000) / 1000;
    while (performance.now() < until);
    process_.kill('SIGKILL');
  }
  await exit;
  assert.ok(lines.length >= last, 'it was killed and did not end by itself');
  return lines;
}

/** What there must be, and what there may be, after everything that was said. */
class Expected {
  readonly certain = new Map<string, 'there' | 'gone'>();

  hear(lines: readonly string[]): void {
    for (const line of lines) {
      const [sign, verb, first, second] = line.split(' ');
      const gone = verb === 'commit' ? second! : verb === 'remove' ? first! : undefined;
      const there = verb === 'remove' ? undefined : first!;
      for (const key of [gone, there]) if (key !== undefined) this.certain.delete(key);
      if (sign !== '=') continue;
      if (gone !== undefined) this.certain.set(gone, 'gone');
      if (there !== undefined) this.certain.set(there, 'there');
    }
  }
}

function checkLayer(folder: string, name: string): void {
  assert.equal(readdirSync(join(folder, name)).length, FILES);
  for (const file of readdirSync(join(folder, name))) {
    assert.equal(readFileSync(join(folder, name, file), 'utf8'), name);
  }
}

for (const name of ['overlayfs', 'native', 'btrfs'] as const) {
  const skip = name === 'btrfs' && !LoopFilesystem.canMake('btrfs') && 'mkfs.btrfs is missing';
  test(
    `kill -9 leaves whole snapshots of ${name} or nothing`,
    { skip, timeout: 120_000 },
    async (context) => {
      using loop = name === 'btrfs' ? new LoopFilesystem('btrfs') : undefined;
      await using stage = new Stage(name, (root) => backends[name](root), loop?.path);
      const seed = Number(process.env.MOOR_TEST_SEED ?? Date.now() % 1_000_000);
      context.diagnostic(`MOOR_TEST_SEED=${seed}`);
      const random = new Random(seed);
      const expected = new Expected();
      for (let kill = 0; kill < KILLS; kill += 1) {
        expected.hear(await runAndKill(name, stage, seed + kill, random));
        const snapshotter = await stage.open();
        const there = new Map(snapshotter.list(namespace).map((info) => [info.name, info]));
        for (const [key, state] of expected.certain)
          assert.equal(there.has(key), state === 'there', `${key} is ${state}`);
        for (const info of there.values()) {
          if (info.kind === Kind.COMMITTED) {
            checkLayer(folderOf(snapshotter, stage.root, info.name), info.name);
            assert.ok((await snapshotter.usage(namespace, info.name)).inodes >= BigInt(FILES));
            continue;
          }
          const ancestors: string[] = [];
          for (let key = info.parent; key !== ''; key = there.get(key)!.parent) ancestors.push(key);
          await stage.within(await snapshotter.mounts(namespace, info.name), (path) => {
            for (const ancestor of ancestors) checkLayer(path, ancestor);
          });
        }
        await snapshotter.cleanup();
        const numbers = [...snapshotter.tree.all()].map(({ snapshot: { id } }) => String(id));
        assert.deepEqual(
          readdirSync(stage.root).sort(),
          numbers.sort(),
          'nothing is left of what is not there',
        );
        await stage.close();
      }
    },
  );
}
