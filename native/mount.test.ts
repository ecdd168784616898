import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdtempSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { constants, mkfifo, mount, statfsType, unmount } from './native.ts';

const TMPFS_MAGIC = 0x01021994;
const PROC_MAGIC = 0x9fa0;

function folder(context: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'moor-mount-'));
  context.after(() => rmSync(path, { recursive: true }));
  return path;
}

const mountinfo = (path: string) =>
  readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .find((line) => line.split(' ')[4] === path);

test('a tmpfs is mounted with its flags and options, and unmounted', (context) => {
  const target = folder(context);
  mount(
    'moor',
    target,
    'tmpfs',
    constants.MS_NOSUID | constants.MS_NODEV | constants.MS_RDONLY,
    'size=64k,mode=0700',
  );
  assert.match(mountinfo(target) ?? '', / ro,nosuid,nodev.* - tmpfs moor ro,size=64k,mode=700/);
  assert.equal(statfsType(target), TMPFS_MAGIC);
  assert.throws(() => writeFileSync(join(target, 'file'), ''), { code: 'EROFS' });
  unmount(target, constants.UMOUNT_NOFOLLOW);
  assert.equal(mountinfo(target), undefined);
  assert.throws(() => unmount(target, 0), {
    code: 'EINVAL',
    errno: -22,
    syscall: 'umount2',
    message: `umount2 ${target}: EINVAL: Invalid argument`,
  });
});

test('a bind mount shows a folder elsewhere, and goes lazily while in use', (context) => {
  const base = folder(context);
  const [source, target] = [join(base, 'source'), join(base, 'target')];
  mkdirSync(source);
  mkdirSync(target);
  writeFileSync(join(source, 'file'), 'x');
  mount(source, target, '', constants.MS_BIND | constants.MS_REC, '');
  assert.ok(existsSync(join(target, 'file')));
  const inUse = spawnSync(
    process.execPath,
    [
      '--input-type=module',
      '-e',
      `import { unmount, constants } from '${import.meta.dirname}/native.ts';
       try { unmount('${target}', 0); } catch (error) { console.log(error.code); }
       unmount('${target}', constants.MNT_DETACH);`,
    ],
    { cwd: target, encoding: 'utf8' },
  );
  assert.equal(inUse.stdout, 'EBUSY\n', inUse.stderr);
  assert.ok(!existsSync(join(target, 'file')));
});

test('an unmount that does not follow links leaves what they point to mounted', (context) => {
  const base = folder(context);
  const [target, link] = [join(base, 'target'), join(base, 'link')];
  mkdirSync(target);
  symlinkSync(target, link);
  mount('moor', target, 'tmpfs', 0, '');
  assert.throws(() => unmount(link, constants.UMOUNT_NOFOLLOW), { code: 'EINVAL' });
  assert.equal(statfsType(target), TMPFS_MAGIC);
  unmount(link, 0);
  assert.notEqual(statfsType(target), TMPFS_MAGIC);
});

test('failures name the target and the cause', (context) => {
  const base = folder(context);
  const missing = join(base, 'missing');
  assert.throws(() => mount('moor', missing, 'tmpfs', 0, ''), {
    code: 'ENOENT',
    syscall: 'mount',
    message: `mount ${missing}: ENOENT: No such file or directory`,
  });
  assert.throws(() => mount('moor', base, 'no-such-filesystem', 0, ''), { code: 'ENODEV' });
  assert.throws(() => mount('moor', base, 'tmpfs', 0, 'size=1,'.repeat(1024)), { code: 'E2BIG' });
  assert.throws(() => mount('moor', `${base}\0`, 'tmpfs', 0, ''), { name: 'TypeError' });
  assert.throws(() => statfsType(missing), { code: 'ENOENT', syscall: 'statfs' });
  assert.equal(statfsType('/proc'), PROC_MAGIC);
});

test('a FIFO is made once', (context) => {
  const path = join(folder(context), 'fifo');
  mkfifo(path, 0o600);
  assert.ok(statSync(path).isFIFO());
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.throws(() => mkfifo(path, 0o600), { code: 'EEXIST', syscall: 'mkfifo' });
});

test('a mount made in a namespace of its own is not seen outside, and joining the namespace shows it', (context) => {
  const target = folder(context);
  const script = `
    import { constants, mount, setns, statfsType, unshare } from '${import.meta.dirname}/native.ts';
    import { openSync } from 'node:fs';
    const outside = openSync('/proc/thread-self/ns/mnt', 'r');
    unshare(constants.CLONE_NEWNS);
    mount('', '/', '', constants.MS_REC | constants.MS_PRIVATE, '');
    mount('moor', '${target}', 'tmpfs', 0, '');
    const inside = openSync('/proc/thread-self/ns/mnt', 'r');
    const seen = [statfsType('${target}')];
    for (const fd of [outside, inside]) {
      setns(fd, constants.CLONE_NEWNS);
      seen.push(statfsType('${target}'));
    }
    let refused = '';
    try { setns(inside, constants.CLONE_NEWNET); } catch (error) { refused = error.code; }
    process.stdout.write(JSON.stringify({ seen, refused }));
  `;
  const run = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
  assert.equal(run.status, 0, run.stderr);
  const { seen, refused } = JSON.parse(run.stdout) as { seen: number[]; refused: string };
  assert.deepEqual(
    seen.map((type) => type === TMPFS_MAGIC),
    [true, false, true],
  );
  assert.equal(refused, 'EINVAL');
  assert.equal(mountinfo(target), undefined);
});
