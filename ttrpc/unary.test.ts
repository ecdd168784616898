import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { test } from 'node:test';
import { Code, failedPrecondition, isCode } from './errors.ts';
import { fails, Notes, setUp } from './fixture.test.ts';
import type { CallContext } from './service.ts';

test('a request reaches its method and the response comes back', async (t) => {
  const { notes } = await setUp(t);
  const body = new Uint8Array(100_000).map((_, i) => i);
  assert.deepEqual(await notes.echo({ text: 'äöü', count: -7, body }), { text: 'äöü', count: -7, body });
  assert.deepEqual(await notes.echo({}), { text: '', count: 0, body: new Uint8Array() });
});

test('many calls share one connection and finish in any order', async (t) => {
  const { notes, server } = await setUp(t, {
    echo: async (request) => {
      if (request.count % 3 === 0) await new Promise(setImmediate);
      return request;
    },
  });
  const answers = await Promise.all(Array.from({ length: 500 }, (_, count) => notes.echo({ count })));
  assert.deepEqual(
    answers.map((answer) => answer.count),
    Array.from({ length: 500 }, (_, count) => count),
  );
  assert.equal(server.connections, 1);
});

test('a failure keeps its kind and its words', async (t) => {
  const { notes } = await setUp(t);
  await assert.rejects(
    notes.fail({ text: 'task "x": ünknown' }),
    fails(Code.NotFound, /^task "x": ünknown$/),
  );
});

test('what is thrown without a kind is Unknown to the caller and told to the server', async (t) => {
  const told: Error[] = [];
  const { notes } = await setUp(
    t,
    {
      fail: () => {
        throw new TypeError('boom');
      },
    },
    { onError: (error) => told.push(error) },
  );
  await assert.rejects(notes.fail({}), fails(Code.Unknown, /^boom$/));
  assert.equal(told[0]?.message, 'test.v1.Notes/Fail: boom');
  assert.ok(told[0]?.cause instanceof TypeError);
});

test('a service or a method that nobody serves is Unimplemented, by name', async (t) => {
  const { client } = await setUp(t);
  const other = client.service({ ...Notes, fullName: 'test.v1.Other' });
  await assert.rejects(other.echo({}), fails(Code.Unimplemented, /test\.v1\.Other/));
  const newer = client.service({ ...Notes, methods: { later: { ...Notes.methods.echo, name: 'Later' } } });
  await assert.rejects(newer.later({}), fails(Code.Unimplemented, /test\.v1\.Notes\/Later/));
});

test('metadata arrives with lower-case keys and all of its values', async (t) => {
  let seen: CallContext['metadata'] | undefined;
  const { notes } = await setUp(t, {
    echo: async (request, context) => {
      seen = context.metadata;
      return request;
    },
  });
  const metadata = [
    ['Containerd-Namespace-TTRPC', 'moby'],
    ['k', 'a'],
    ['K', 'b'],
  ] as const;
  await notes.echo({}, { metadata });
  assert.deepEqual(
    [...seen!],
    [
      ['containerd-namespace-ttrpc', ['moby']],
      ['k', ['a', 'b']],
    ],
  );
  await notes.echo({});
  assert.equal(seen!.size, 0);
});

test('a deadline ends the call on both sides', async (t) => {
  const aborted = Promise.withResolvers<unknown>();
  const { notes } = await setUp(t, {
    wait: (_request, { signal }) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => {
          aborted.resolve(signal.reason);
          reject(new DOMException('aborted', 'AbortError'));
        });
      }),
  });
  await assert.rejects(notes.wait({}, { timeout: 20 }), fails(Code.DeadlineExceeded, /20 ms/));
  assert.ok(isCode(await aborted.promise, Code.DeadlineExceeded));
  assert.equal((await notes.echo({ count: 1 })).count, 1, 'the late response is dropped');
});

test('a call whose time is over is not sent', async (t) => {
  let calls = 0;
  const { notes } = await setUp(t, {
    echo: async (request) => {
      calls += 1;
      return request;
    },
  });
  await assert.rejects(notes.echo({}, { timeout: 0 }), fails(Code.DeadlineExceeded));
  await assert.rejects(notes.echo({}, { signal: AbortSignal.abort() }), fails(Code.Cancelled));
  await notes.echo({}, { timeout: Infinity });
  await notes.echo({}, { timeout: 2 ** 40 });
  assert.equal(calls, 2);
});

test('a signal cancels the call here, and is left without listeners', async (t) => {
  const { notes } = await setUp(t);
  const controller = new AbortController();
  const waiting = notes.wait({}, { signal: controller.signal });
  await notes.echo({}, { signal: controller.signal });
  assert.equal(getEventListeners(controller.signal, 'abort').length, 1);
  controller.abort(new Error('enough'));
  await assert.rejects(waiting, fails(Code.Cancelled));
  assert.equal(getEventListeners(controller.signal, 'abort').length, 0);
});

test('a call made on behalf of another ends with the code of that one', async (t) => {
  const { notes } = await setUp(t);
  const controller = new AbortController();
  const waiting = notes.wait({}, { signal: controller.signal });
  controller.abort(failedPrecondition('stopped'));
  await assert.rejects(waiting, fails(Code.FailedPrecondition, /stopped/));
});

test('an oversized request or response fails its own call only', async (t) => {
  const { notes } = await setUp(t, {
    fail: async () => ({ body: new Uint8Array(5 << 20) }),
  });
  await assert.rejects(notes.echo({ body: new Uint8Array(5 << 20) }), fails(Code.ResourceExhausted));
  await assert.rejects(notes.fail({}), fails(Code.ResourceExhausted));
  const body = new Uint8Array((4 << 20) - 100).fill(7);
  assert.deepEqual((await notes.echo({ body })).body, body);
});
