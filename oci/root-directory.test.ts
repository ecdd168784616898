import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Code, isCode } from '../ttrpc/errors.ts';
import { RootDirectory } from './root-directory.ts';
import { imageUser } from './user.ts';

const base = mkdtempSync('/tmp/moor-root-');
after(() => rmSync(base, { recursive: true }));
const root = join(base, 'root');
mkdirSync(join(root, 'etc/deep'), { recursive: true });
const put = (path: string, text: string) => writeFileSync(join(root, path), text);
const refused = (error: unknown) => isCode(error, Code.InvalidArgument);

test('a file is found through links as the container finds it, never outside', () => {
  writeFileSync(join(base, 'secret'), 'of the host');
  put('etc/plain', 'inside');
  symlinkSync('/etc/plain', join(root, 'absolute'));
  symlinkSync('../../../../../etc/plain', join(root, 'etc/deep/up'));
  symlinkSync('../secret', join(root, 'out'));
  symlinkSync(join(base, 'secret'), join(root, 'host'));
  symlinkSync('/proc/self/cwd', join(root, 'cwd'));
  symlinkSync('loop', join(root, 'loop'));
  symlinkSync('../etc/deep', join(root, 'etc/folder'));
  const before = readdirSync('/proc/self/fd').length;
  using directory = RootDirectory.open(root);
  assert.equal(directory.readText('etc/plain'), 'inside');
  assert.equal(directory.readText('absolute'), 'inside');
  assert.equal(directory.readText('etc/deep/up'), 'inside');
  assert.equal(directory.readText('etc/folder/../plain'), 'inside');
  assert.equal(directory.readText('../../../etc/plain'), 'inside');
  for (const path of ['out', 'host', 'cwd', 'cwd/x', 'none', 'etc/plain/x']) {
    assert.equal(directory.readText(path), undefined, path);
  }
  assert.throws(() => directory.readText('loop'), refused);
  assert.equal(readdirSync('/proc/self/fd').length, before + 1);
});

test('what is no file is not opened: a FIFO would wait, a device would be the host’s', () => {
  execFileSync('mkfifo', [join(root, 'fifo')]);
  execFileSync('mknod', [join(root, 'zero'), 'c', '1', '5']);
  put('large', '');
  truncateSync(join(root, 'large'), 2 ** 30);
  using directory = RootDirectory.open(root);
  for (const path of ['fifo', 'zero', 'large', 'etc'])
    assert.throws(() => directory.readText(path), refused, path);
  assert.throws(() => RootDirectory.open(join(base, 'none')), refused);
});

test('a snapshot is looked into by its mounts', () => {
  for (const name of ['lower', 'upper', 'work']) mkdirSync(join(base, name));
  mkdirSync(join(base, 'lower/etc'));
  writeFileSync(join(base, 'lower/etc/passwd'), 'low:x:5:6::/:\n');
  const options = [`workdir=${base}/work`, `upperdir=${base}/upper`, `lowerdir=${base}/lower`];
  for (const mount of [
    { type: 'overlay', source: 'overlay', target: '', options },
    { type: 'bind', source: join(base, 'lower'), target: '', options: ['rw', 'rbind'] },
  ]) {
    using directory = RootDirectory.mount([mount]);
    assert.equal(directory.readText('etc/passwd'), 'low:x:5:6::/:\n');
  }
  const unfit = (error: unknown) => isCode(error, Code.FailedPrecondition);
  assert.throws(() => RootDirectory.mount([]), unfit);
  assert.throws(
    () => RootDirectory.mount([{ type: 'bind', source: '/no/such', target: '', options: ['bind'] }]),
    unfit,
  );
});

test('the user of an image is in all of its groups', () => {
  put(
    'etc/passwd',
    'broken:x::\nroot:x:0:0::/:\nsailor:x:1000:1001::/:\nother:x:1000:7::/:\nwide:x:99999999999:1::/:\n',
  );
  put(
    'etc/group',
    'root:x:0:root\nwheel:x:10:root,sailor\ncrew:x:1001:\ndeck:x:1002:sailor\nbad:x:x:sailor\n',
  );
  using directory = RootDirectory.open(root);
  const ids = (user: string) => {
    const { uid, gid, additionalGids } = imageUser(user, directory);
    return [uid, gid, additionalGids];
  };
  assert.deepEqual(ids(''), [0, 0, [0, 10]]);
  assert.deepEqual(ids('sailor'), [1000, 1001, [1001, 10, 1002]]);
  assert.deepEqual(ids('1000'), [1000, 1001, [1001, 10, 1002]]);
  assert.deepEqual(ids('sailor:deck'), [1000, 1002, [1002, 10]]);
  assert.deepEqual(ids('1000:5'), [1000, 5, [5, 10, 1002]]);
  assert.deepEqual(ids('77'), [77, 0, [0]]);
  for (const name of ['nobody', 'broken', 'wide', 'sailor:none']) {
    assert.throws(
      () => imageUser(name, directory),
      (error) => isCode(error, Code.NotFound),
      name,
    );
  }
  assert.throws(() => imageUser('a:b:c', directory), refused);
});
