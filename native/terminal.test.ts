import assert from 'node:assert/strict';
import {
  closeSync,
  constants,
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
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { getWindowSize, mkfifo, openPty, pipe, Poll, setNonblock, setWindowSize, splice } from './native.ts';

const descriptors = () => readdirSync('/proc/self/fd').length;

function ready(fd: number, events: 'readable' | 'writable'): Promise<void> {
  return new Promise((resolve) => {
    const poll = new Poll(fd, events, () => {
      poll.close();
      resolve();
    });
  });
}

test('both ends of a terminal agree on its size', () => {
  const before = descriptors();
  const { master, slave } = openPty();
  setWindowSize(master, { rows: 33, columns: 121 });
  assert.deepEqual(getWindowSize(slave), { rows: 33, columns: 121 });
  assert.deepEqual(getWindowSize(master), { rows: 33, columns: 121 });
  assert.throws(() => setWindowSize(master, { rows: 65536, columns: 1 }), { name: 'TypeError' });
  closeSync(master);
  closeSync(slave);
  assert.equal(descriptors(), before);
});

test('what is no terminal has no size', () => {
  const { read, write } = pipe();
  assert.throws(() => getWindowSize(read), { code: 'ENOTTY', syscall: 'ioctl' });
  assert.throws(() => setWindowSize(write, { rows: 1, columns: 1 }), { code: 'ENOTTY' });
  closeSync(read);
  closeSync(write);
});

test('a terminal’s output and input are spliced through FIFOs, and its end is EIO after the last byte', async () => {
  const before = descriptors();
  const folder = mkdtempSync(join(tmpdir(), 'moor-pty-'));
  const [outPath, inPath] = [join(folder, 'out'), join(folder, 'in')];
  mkfifo(outPath, 0o600);
  mkfifo(inPath, 0o600);
  const flags = constants.O_RDWR | constants.O_NONBLOCK;
  const [out, input] = [openSync(outPath, flags), openSync(inPath, flags)];
  const { master, slave } = openPty();
  setNonblock(master, true);
  const size = 300_000;
  const command = `stty raw -echo; echo ready; read line; echo "got $line"; head -c ${size} /dev/zero | tr '\\0' x`;
  const child = spawn('sh', ['-c', command], { stdio: [slave, slave, slave] });
  const exit = once(child, 'exit');
  closeSync(slave);

  let received = '';
  const buffer = Buffer.alloc(65536);
  const take = () => {
    for (;;) {
      try {
        received += buffer.toString('latin1', 0, readSync(out, buffer));
      } catch (error) {
        assert.equal((error as NodeJS.ErrnoException).code, 'EAGAIN');
        return;
      }
    }
  };
  let answered = false;
  for (;;) {
    let moved: number | undefined;
    try {
      moved = splice(master, out, 65536);
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, 'EIO');
      break;
    }
    take();
    if (!answered && received.includes('ready')) {
      answered = true;
      writeSync(input, 'to the terminal\n');
      assert.equal(splice(input, master, 65536), 16);
    }
    if (moved === undefined) await ready(master, 'readable');
  }
  take();
  assert.match(received, /^ready\ngot to the terminal\nx+$/);
  assert.equal(received.length, size + 'ready\ngot to the terminal\n'.length);
  assert.deepEqual(await exit, [0, null]);
  for (const fd of [out, input, master]) closeSync(fd);
  rmSync(folder, { recursive: true });
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(descriptors(), before);
});
