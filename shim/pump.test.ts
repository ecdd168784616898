import assert from 'node:assert/strict';
import { readSync, writeSync } from 'node:fs';
import { afterEach, beforeEach, test } from 'node:test';
import { pipe, setNonblock } from '../native/native.ts';
import { Descriptor } from './descriptor.ts';
import { Pump } from './pump.ts';

const PIPE_SIZE = 65_536;

let from: { read: Descriptor; write: Descriptor };
let to: { read: Descriptor; write: Descriptor };
let pump: Pump;

beforeEach(() => {
  const newPipe = () => {
    const { read, write } = pipe();
    return { read: new Descriptor(read), write: new Descriptor(write) };
  };
  [from, to] = [newPipe(), newPipe()];
  setNonblock(from.write.fd, true);
  setNonblock(to.read.fd, true);
  pump = new Pump(from.read.fd, to.write.fd);
});

afterEach(() => {
  pump.close();
  for (const descriptor of [from.read, from.write, to.read, to.write]) descriptor.close();
});

/** Everything that can be read from the output now. */
function available(): string {
  const buffer = Buffer.alloc(PIPE_SIZE);
  let text = '';
  for (;;) {
    try {
      const length = readSync(to.read.fd, buffer);
      if (length === 0) return text;
      text += buffer.toString('latin1', 0, length);
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, 'EAGAIN');
      return text;
    }
  }
}

/** Puts as much into the input as it takes now. */
function fill(): number {
  let written = 0;
  try {
    for (;;) written += writeSync(from.write.fd, 'x'.repeat(4096));
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, 'EAGAIN');
    return written;
  }
}

/** The event loop has looked at all descriptors. */
async function looked(): Promise<void> {
  for (let round = 0; round < 3; round++) await new Promise((resolve) => setImmediate(resolve));
}

test('what goes in comes out, until the input ends', async () => {
  writeSync(from.write.fd, 'one');
  await looked();
  assert.equal(available(), 'one');
  writeSync(from.write.fd, 'two');
  from.write.close();
  await pump.done;
  assert.equal(available(), 'two');
});

test('a full output stops the pump, which goes on when there is room', async () => {
  let written = 0;
  for (let round = 0; round < 5; round++) {
    written += fill();
    await looked();
  }
  assert.equal(written, 2 * PIPE_SIZE, 'both pipes are full and nothing is kept elsewhere');
  from.write.close();
  let read = 0;
  while (read < written) {
    read += available().length;
    await looked();
  }
  await pump.done;
  assert.equal(read, written);
});

test('a reader that leaves ends the pump', async () => {
  to.read.close();
  writeSync(from.write.fd, 'lost');
  await pump.done;
});

test('an input that others hold open ends when it is empty and its process is gone', async () => {
  writeSync(from.write.fd, 'last');
  pump.finish();
  await pump.done;
  assert.equal(available(), 'last');
});

test('an event loop that was busy does not take unread bytes for silence', async () => {
  await looked();
  pump.finish();
  writeSync(from.write.fd, 'late');
  const until = performance.now() + 60;
  while (performance.now() < until);
  await pump.done;
  assert.equal(available(), 'late');
});
