/**
 * Makes and removes snapshots without end, to be killed by a test. Says on stdout what it is about to do (`+`) and what is done
 * (`=`), in words: `prepare KEY PARENT`, `commit NAME KEY`, `remove KEY`.
 *
 *   node churn.ts overlayfs|native|btrfs DIRECTORY ROOT SEED
 */
import { mkdirSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { LocalSnapshotter } from '../local-snapshotter.ts';
import { backends } from '../snapshotters.ts';
import { Random } from './random.ts';
import { Stage, namespace } from './stage.ts';

export const FILES = 12;

/** Where a snapshot's own files are. */
export function folderOf(snapshotter: LocalSnapshotter, root: string, key: string): string {
  const { id } = snapshotter.tree.get(namespace, key);
  return join(root, String(id), snapshotter.name === 'overlayfs' ? 'fs' : '');
}

async function said(words: string[], action: () => Promise<unknown>): Promise<void> {
  writeSync(1, `+ ${words.join(' ')}\n`);
  await action();
  writeSync(1, `= ${words.join(' ')}\n`);
}

/** Grows a chain of layers and takes it down again, over and over. */
async function churn(
  snapshotter: LocalSnapshotter,
  root: string,
  lane: string,
  random: Random,
): Promise<void> {
  const chain: string[] = [];
  for (let count = 0; ; count += 1) {
    const name = `${lane}-${count}`;
    const parent = chain.at(-1) ?? '';
    if (chain.length > 1 + random.below(4)) {
      await said(['remove', parent], () => snapshotter.remove(namespace, parent));
      chain.pop();
      continue;
    }
    const key = `${name}-active`;
    await said(['prepare', key, parent], () => snapshotter.prepare(namespace, key, parent));
    if (random.below(4) === 0) {
      await said(['remove', key], () => snapshotter.remove(namespace, key));
      continue;
    }
    const folder = join(folderOf(snapshotter, root, key), name);
    mkdirSync(folder);
    for (let file = 0; file < FILES; file += 1) writeFileSync(join(folder, String(file)), name);
    await said(['commit', name, key], () => snapshotter.commit(namespace, name, key));
    chain.push(name);
  }
}

if (import.meta.main) {
  const [name, directory, root, seed] = process.argv.slice(2);
  const stage = new Stage(name!, (path) => backends[name as keyof typeof backends](path), root, directory);
  const snapshotter = await stage.open();
  const random = new Random(Number(seed));
  const lane = (suffix: string): Promise<void> =>
    churn(snapshotter, stage.root, `${seed}${suffix}`, new Random(random.below(1 << 30)));
  await Promise.all(['a', 'b', 'c'].map(lane));
}
