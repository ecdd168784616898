import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
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
import { Worker } from 'node:worker_threads';
import { eventfd, mkfifo, pipe, Poll, setNonblock, socketPair, splice } from './native.ts';

const descriptors = () => readdirSync('/proc/self/fd').length;

/** One turn of the loop in which libuv's closing callbacks have run. */
const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Moves everything from one descriptor to another, each side watched in turn, until the end of the input. */
function pump(from: number, to: number): Promise<number> {
  return new Promise((resolve, reject) => {
    let total = 0;
    let poll: Poll;
    const wait = (side: 'readable' | 'writable') => {
      poll = new Poll(side === 'readable' ? from : to, side, () => {
        try {
          const moved = splice(from, to, 1 << 20);
          if (moved === 0) {
            poll.close();
            resolve(total);
          } else if (moved === undefined) {
            poll.close();
            wait(side === 'readable' ? 'writable' : 'readable');
          } else {
            total += moved;
          }
        } catch (error) {
          poll.close();
          reject(error);
        }
      });
    };
    wait('readable');
  });
}

test('several MiB go whole from one FIFO to another, spliced on the event loop', async () => {
  const before = descriptors();
  const folder = mkdtempSync(join(tmpdir(), 'moor-fifo-'));
  const [source, target] = [join(folder, 'source'), join(folder, 'target')];
  mkfifo(source, 0o600);
  mkfifo(target, 0o600);
  const flags = constants.O_RDONLY | constants.O_NONBLOCK;
  const from = openSync(source, flags);
  const feed = openSync(source, constants.O_WRONLY | constants.O_NONBLOCK);
  const drain = openSync(target, flags);
  const to = openSync(target, constants.O_WRONLY | constants.O_NONBLOCK);

  const data = randomBytes(8 << 20);
  let offset = 0;
  const writer = new Poll(feed, 'writable', () => {
    offset += writeSync(feed, data, offset, Math.min(70_000, data.length - offset));
    if (offset < data.length) return;
    writer.close();
    closeSync(feed);
  });
  const hash = createHash('sha256');
  const buffer = Buffer.alloc(50_000);
  const received = new Promise<number>((resolve) => {
    let total = 0;
    const reader = new Poll(drain, 'readable', () => {
      const count = readSync(drain, buffer);
      total += count;
      hash.update(buffer.subarray(0, count));
      if (count > 0) return;
      reader.close();
      resolve(total);
    });
  });
  assert.equal(await pump(from, to), data.length);
  closeSync(to);
  assert.equal(await received, data.length);
  assert.equal(hash.digest('hex'), createHash('sha256').update(data).digest('hex'));
  closeSync(from);
  closeSync(drain);
  rmSync(folder, { recursive: true });
  await turn();
  assert.equal(descriptors(), before);
});

test('a writer that leaves wakes a readable poll, which then reads the end', async () => {
  const { read, write } = pipe();
  const woken = new Promise<number>((resolve, reject) => {
    const poll = new Poll(read, 'readable', (error) => {
      poll.close();
      if (error) reject(error);
      else resolve(readSync(read, Buffer.alloc(1)));
    });
  });
  closeSync(write);
  assert.equal(await woken, 0);
  closeSync(read);
});

test('a reader that leaves wakes a writable poll again and again, and the write says EPIPE', async () => {
  const { read, write } = pipe();
  setNonblock(write, true);
  writeSync(write, Buffer.alloc(65536));
  let calls = 0;
  const woken = new Promise<void>((resolve) => {
    const poll = new Poll(write, 'writable', (error) => {
      assert.equal(error, undefined);
      if (++calls < 3) return;
      poll.close();
      resolve();
    });
  });
  closeSync(read);
  await woken;
  assert.throws(() => writeSync(write, 'x'), { code: 'EPIPE' });
  closeSync(write);
});

test('one descriptor can be watched for reading and for writing at once, and be closed meanwhile', async () => {
  const [here, there] = socketPair();
  const events: string[] = [];
  const done = new Promise<void>((resolve) => {
    const reader = new Poll(here, 'readable', () => {
      events.push('readable');
      reader.close();
      resolve();
    });
    const writer = new Poll(here, 'writable', () => {
      events.push('writable');
      writer.close();
      closeSync(here);
      writeSync(there, 'x');
    });
  });
  await done;
  assert.deepEqual(events, ['writable', 'readable']);
  closeSync(there);
});

test('a closed poll is silent, and closing it again does nothing', async () => {
  const fd = eventfd();
  const signal = Buffer.alloc(8);
  signal.writeBigUInt64LE(1n);
  writeSync(fd, signal);
  let calls = 0;
  const poll = await new Promise<Poll>((resolve) => {
    const poll = new Poll(fd, 'readable', () => {
      calls++;
      poll.close();
      poll.close();
      resolve(poll);
    });
  });
  await turn();
  poll.close();
  poll.ref();
  poll.unref();
  assert.equal(calls, 1);
  const silent = new Poll(fd, 'readable', () => calls++);
  silent.close();
  await turn();
  assert.equal(calls, 1);
  closeSync(fd);
});

test('thousands of polls leave no descriptor behind', async () => {
  const before = descriptors();
  const fd = eventfd();
  for (let i = 0; i < 5000; i++) {
    new Poll(fd, 'readable', () => {}).close();
    if (i % 500 === 0) await turn();
  }
  await turn();
  closeSync(fd);
  assert.equal(descriptors(), before);
});

test('an exception in the callback is an uncaught exception, and ticks queued by it run', async () => {
  const { read, write } = pipe();
  const events: string[] = [];
  const poll = new Poll(read, 'readable', () => {
    poll.close();
    queueMicrotask(() => events.push('microtask'));
    process.nextTick(() => events.push('tick'));
    throw new Error('from the callback');
  });
  const listeners = process.listeners('uncaughtException');
  process.removeAllListeners('uncaughtException');
  const caught = once(process, 'uncaughtException');
  writeSync(write, 'x');
  const [error] = (await caught) as [Error];
  for (const listener of listeners) process.on('uncaughtException', listener);
  assert.equal(error.message, 'from the callback');
  await turn();
  assert.deepEqual(events.toSorted(), ['microtask', 'tick']);
  closeSync(read);
  closeSync(write);
});

test('an open poll keeps the process alive until it is unreferenced', () => {
  const run = (line: string) => {
    const script = `
      import { eventfd, Poll } from '${import.meta.dirname}/native.ts';
      import { writeSync } from 'node:fs';
      const fd = eventfd();
      const poll = new Poll(fd, 'readable', () => {
        poll.close();
        process.stdout.write('woken');
      });
      // Fires only in a process that something else keeps alive.
      setTimeout(() => writeSync(fd, new BigUint64Array([1n])), 1).unref();
      ${line}
    `;
    const run = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
    assert.equal(run.status, 0, run.stderr);
    return run.stdout;
  };
  assert.equal(run(''), 'woken');
  assert.equal(run('poll.unref();'), '');
  assert.equal(run('process.exit();'), '');
  assert.equal(run('poll.unref(); poll.ref();'), 'woken');
});

test('a worker that ends with an open poll takes it along', async () => {
  const before = descriptors();
  for (let i = 0; i < 3; i++) {
    const script = `
      import('${import.meta.dirname}/native.ts').then(({ eventfd, Poll }) => {
        const fd = eventfd();
        new Poll(fd, 'readable', () => {});
        require('node:fs').closeSync(fd);
        require('node:worker_threads').parentPort.postMessage('open');
      });
    `;
    const worker = new Worker(script, { eval: true, trackUnmanagedFds: false });
    await once(worker, 'message');
    assert.equal(await worker.terminate(), 1);
  }
  await turn();
  assert.equal(descriptors(), before);
});

test('a regular file cannot be polled and says so', () => {
  const fd = openSync(import.meta.filename, 'r');
  assert.throws(() => new Poll(fd, 'readable', () => {}), { code: 'EPERM', syscall: 'uv_poll_init' });
  closeSync(fd);
  assert.throws(() => new Poll(fd, 'readable', () => {}), { code: 'EBADF' });
  assert.throws(() => new Poll(0, 'readable', 'no function' as unknown as () => void), { name: 'TypeError' });
});
