import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import type { Mount } from '../proto/gen/containerd/types/mount.ts';
import { Reaper } from './reaper.ts';
import { mountRootfs, unmountRootfs } from './rootfs.ts';

let folder: string;
let target: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'moor-rootfs-'));
  target = join(folder, 'rootfs');
});

afterEach(async () => {
  await unmountRootfs(target);
  rmSync(folder, { recursive: true });
});

const mounts = () =>
  readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .filter((line) => line.includes(target));
const bind = (source: string, ...options: string[]): Mount => ({ type: 'bind', source, target: '', options });
const reaper = new Reaper();
const mountAll = (...all: Mount[]) => mountRootfs(all, target, reaper);

test('mounts are put one on the other, and all are taken away', async () => {
  mkdirSync(join(folder, 'a'));
  mkdirSync(join(folder, 'b'));
  writeFileSync(join(folder, 'b/file'), 'b');
  await mountAll(bind(join(folder, 'a'), 'bind'), bind(join(folder, 'b'), 'rbind', 'ro'));
  assert.equal(mounts().length, 2);
  assert.deepEqual(readdirSync(target), ['file']);
  assert.throws(() => writeFileSync(join(target, 'file'), 'c'), { code: 'EROFS' });
  await unmountRootfs(target);
  assert.deepEqual(mounts(), []);
  await unmountRootfs(target);
  await unmountRootfs(join(folder, 'nowhere'));
});

test('a mount that fails undoes those before it and is named', async () => {
  mkdirSync(join(folder, 'a'));
  await assert.rejects(mountAll(bind(join(folder, 'a'), 'bind'), bind('/nope', 'bind')), {
    code: 9,
    message: /mount bind \/nope \[bind\] on .*: .*ENOENT/,
  });
  assert.deepEqual(mounts(), []);
});

test('an image of 130 layers is mounted although their names fill more than a page', async () => {
  const layers = Array.from({ length: 130 }, (_, index) => {
    const layer = join(folder, 'snapshots-of-a-long-name', `${index}`, 'fs');
    mkdirSync(layer, { recursive: true });
    writeFileSync(join(layer, `file-${index}`), '');
    return layer;
  });
  mkdirSync(join(folder, 'upper'));
  mkdirSync(join(folder, 'work'));
  const options = [`lowerdir=${layers.join(':')}`, `upperdir=${folder}/upper`, `workdir=${folder}/work`];
  assert.ok(options.join(',').length > 4096);
  const before = process.cwd();
  await mountAll({ type: 'overlay', source: 'overlay', target: '', options });
  assert.equal(readdirSync(target).length, 130);
  assert.equal(process.cwd(), before);
});
