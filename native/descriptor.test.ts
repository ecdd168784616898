import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  closeRange,
  eventfd,
  flock,
  pipe,
  setCloexec,
  setNonblock,
  setPipeSize,
  splice,
  unreadBytes,
} from './native.ts';

const descriptors = () => readdirSync('/proc/self/fd').length;

test('a pipe carries bytes and its ends can be made non-blocking', () => {
  const before = descriptors();
  const { read, write } = pipe();
  setNonblock(read, true);
  const buffer = Buffer.alloc(8);
  assert.throws(() => readSync(read, buffer), { code: 'EAGAIN' });
  writeSync(write, 'moored');
  assert.equal(readSync(read, buffer), 6);
  closeSync(read);
  closeSync(write);
  assert.equal(descriptors(), before);
});

test('a pipe grows to the size asked for', () => {
  const { read, write } = pipe();
  assert.equal(setPipeSize(write, 1 << 18), 1 << 18);
  assert.equal(setPipeSize(write, 5000), 8192, 'rounded up to a power of two of pages');
  writeSync(write, Buffer.alloc(8192));
  assert.throws(() => setPipeSize(write, 4096), { code: 'EBUSY', syscall: 'fcntl' });
  closeSync(read);
  closeSync(write);
});

test('splice tells nothing yet, some bytes, and the end apart', () => {
  const from = pipe();
  const to = pipe();
  assert.equal(splice(from.read, to.write, 65536), undefined);
  writeSync(from.write, 'bytes');
  assert.equal(splice(from.read, to.write, 65536), 5);
  closeSync(from.write);
  assert.equal(splice(from.read, to.write, 65536), 0);
  closeSync(from.read);
  closeSync(to.read);
  closeSync(to.write);
});

test('splice into a pipe that nobody reads is EPIPE and not a signal', () => {
  const from = pipe();
  const to = pipe();
  writeSync(from.write, 'bytes');
  closeSync(to.read);
  assert.throws(() => splice(from.read, to.write, 65536), { code: 'EPIPE', syscall: 'splice' });
  for (const fd of [from.read, from.write, to.write]) closeSync(fd);
});

test('a lock excludes another process until its holder closes the file', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'moor-lock-'));
  const path = join(folder, 'lock');
  const script = `
    import { flock } from '${import.meta.dirname}/native.ts';
    import { openSync } from 'node:fs';
    const held = flock(openSync('${path}', 'w'), true);
    process.stdout.write(held ? 'held' : 'refused');
    process.stdin.resume();
  `;
  const holder = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const [said] = (await once(holder.stdout, 'data')) as [Buffer];
  assert.equal(said.toString(), 'held');
  const fd = openSync(path, 'w');
  assert.equal(flock(fd, true), false);
  assert.equal(flock(fd, false), false);
  holder.stdin.end();
  await once(holder, 'exit');
  assert.equal(flock(fd, true), true);
  closeSync(fd);
  rmSync(folder, { recursive: true });
});

test('an event counter counts', () => {
  const fd = eventfd();
  const buffer = Buffer.alloc(8);
  assert.throws(() => readSync(fd, buffer), { code: 'EAGAIN' });
  buffer.writeBigUInt64LE(3n);
  writeSync(fd, buffer);
  writeSync(fd, buffer);
  readSync(fd, buffer);
  assert.equal(buffer.readBigUInt64LE(), 6n);
  closeSync(fd);
});

test('a range of descriptors is closed from the first one up', () => {
  const highest = Math.max(...readdirSync('/proc/self/fd').map(Number));
  const opened: number[] = [];
  while ((opened.at(-1) ?? 0) <= highest + 2) opened.push(openSync('/dev/null', 'r'));
  const first = opened.at(-2);
  assert.ok(first !== undefined && first > highest);
  closeRange(first, 'cloexec');
  fstatSync(first);
  closeRange(first);
  for (const fd of opened) {
    if (fd >= first) assert.throws(() => fstatSync(fd), { code: 'EBADF' });
    else closeSync(fd);
  }
});

test('a descriptor that is not open is EBADF by name', () => {
  const bad = { name: 'Error', code: 'EBADF', errno: -9 };
  assert.throws(() => setCloexec(-1, true), { ...bad, syscall: 'fcntl' });
  assert.throws(() => setNonblock(100_000, true), { ...bad, message: 'fcntl: EBADF: Bad file descriptor' });
  assert.throws(() => flock(-1, true), { ...bad, syscall: 'flock' });
  assert.throws(() => splice(-1, -1, 1), { ...bad, syscall: 'splice' });
  assert.throws(() => closeRange(-1), { ...bad, syscall: 'close_range' });
});

test('both ends of a pipe tell how much of it is unread', () => {
  const { read, write } = pipe();
  try {
    assert.equal(unreadBytes(read), 0);
    writeSync(write, 'twelve bytes');
    assert.equal(unreadBytes(read), 12);
    assert.equal(unreadBytes(write), 12);
  } finally {
    closeSync(read);
    closeSync(write);
  }
  assert.throws(() => unreadBytes(read), { code: 'EBADF', syscall: 'ioctl' });
});
