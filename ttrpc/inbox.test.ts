import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { Code, internal, isCode, type RpcError } from './errors.ts';
import { gather } from './fixture.test.ts';
import { Inbox, STALL_MS } from './inbox.ts';

function setUp() {
  const seen = { holds: 0, left: 0, stalls: [] as RpcError[] };
  const tap = {
    hold: () => void (seen.holds += 1),
    release: () => void (seen.holds -= 1),
  };
  const inbox: Inbox<number> = new Inbox(
    tap,
    (error) => {
      seen.stalls.push(error);
      inbox.abort(error);
    },
    () => void (seen.left += 1),
  );
  return { inbox, seen };
}

function fill(inbox: Inbox<number>): void {
  for (let i = 0; i < 64; i += 1) inbox.push(i, 1);
}

function stopClock(t: TestContext) {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  return t.mock.timers;
}

test('messages come in order, then the end', async () => {
  const { inbox } = setUp();
  const first = inbox.next();
  const second = inbox.next();
  for (const message of [1, 2, 3]) inbox.push(message, 1);
  inbox.end();
  inbox.push(4, 1);
  assert.deepEqual([(await first).value, (await second).value], [1, 2]);
  assert.deepEqual(await gather(inbox), [3]);
  assert.equal((await inbox.next()).done, true);
});

test('a failure comes after what was received before it, once', async () => {
  const { inbox } = setUp();
  inbox.push(1, 1);
  inbox.fail(internal('lost'));
  inbox.end();
  assert.equal((await inbox.next()).value, 1);
  await assert.rejects(inbox.next(), /lost/);
  assert.equal((await inbox.next()).done, true);
});

test('readers that wait are told: one of the failure, the others of the end', async () => {
  const { inbox } = setUp();
  const waiting = [inbox.next(), inbox.next()] as const;
  inbox.fail(internal('lost'));
  await assert.rejects(waiting[0], /lost/);
  assert.equal((await waiting[1]).done, true);
});

test('an abort drops what nobody has read', async () => {
  const { inbox } = setUp();
  inbox.push(1, 1);
  inbox.abort(internal('cancelled'));
  await assert.rejects(inbox.next(), /cancelled/);
});

test('a full inbox stops the connection until one message is taken', async () => {
  const { inbox, seen } = setUp();
  fill(inbox);
  assert.equal(seen.holds, 1);
  inbox.push(64, 1);
  assert.equal(seen.holds, 1, 'one inbox holds once');
  await inbox.next();
  assert.equal(seen.holds, 1);
  await inbox.next();
  assert.equal(seen.holds, 0);
  inbox.push(0, 1 << 20);
  assert.equal(seen.holds, 1, 'bytes count as well');
  await inbox.return();
  assert.equal(seen.holds, 0);
});

test('nothing is held once no more can come', () => {
  for (const close of [
    (inbox: Inbox<number>) => inbox.end(),
    (inbox: Inbox<number>) => inbox.fail(internal('lost')),
    (inbox: Inbox<number>) => inbox.abort(internal('cancelled')),
  ]) {
    const { inbox, seen } = setUp();
    fill(inbox);
    close(inbox);
    assert.equal(seen.holds, 0);
  }
});

test('a reader that stays away fails its stream and frees the connection', async (t) => {
  const clock = stopClock(t);
  const { inbox, seen } = setUp();
  fill(inbox);
  clock.tick(STALL_MS - 1);
  assert.equal(seen.stalls.length, 0);
  clock.tick(1);
  assert.ok(isCode(seen.stalls[0], Code.ResourceExhausted));
  assert.equal(seen.holds, 0);
  await assert.rejects(inbox.next(), /nobody read/);
});

test('a reader that is slow but comes is waited for', async (t) => {
  const clock = stopClock(t);
  const { inbox, seen } = setUp();
  fill(inbox);
  for (let i = 0; i < 5; i += 1) {
    clock.tick(STALL_MS - 1);
    await inbox.next();
    inbox.push(i, 1);
  }
  assert.equal(seen.stalls.length, 0);
  await inbox.return();
});

test('a reader that leaves is reported once, unless all was over', async () => {
  const { inbox, seen } = setUp();
  inbox.push(1, 1);
  for await (const _ of inbox) break;
  assert.equal(seen.left, 1);
  inbox.push(2, 1);
  assert.equal((await inbox.next()).done, true);
  await inbox.return();
  assert.equal(seen.left, 1);
});
