import type * as grpc from '@grpc/grpc-js';
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { constants } from 'node:http2';
import { test } from 'node:test';
import { Code, type RpcError, failedPrecondition } from '../../ttrpc/errors.ts';
import type { CallContext } from '../../ttrpc/service.ts';
import { aborted, rawCall, serve } from './fixture.test.ts';

test('a stream of responses arrives whole and in order', async (t) => {
  const { client } = await serve(t, {
    async *repeat({ version }) {
      for (let i = 0; i < 500; i += 1) yield { version: `${version}${i}` };
    },
  });
  const received = await Array.fromAsync(client.stream('x') as AsyncIterable<string>);
  assert.deepEqual(
    received,
    Array.from({ length: 500 }, (_, i) => `x${i}`),
  );
});

test('a stream that fails delivers what came before', async (t) => {
  const { client } = await serve(t, {
    async *repeat() {
      yield { version: 'one' };
      throw failedPrecondition('no more');
    },
  });
  const stream = client.stream('');
  const received: string[] = [];
  stream.on('data', (text: string) => received.push(text));
  const [error] = (await once(stream, 'error')) as [grpc.ServiceError];
  assert.equal(error.code, Code.FailedPrecondition);
  assert.equal(error.details, 'no more');
  assert.deepEqual(received, ['one']);
});

test('headers come before the first response, once the implementation has begun', async (t) => {
  let begun = false;
  const { client } = await serve(t, {
    async *repeat(_, context) {
      begun = true;
      await aborted(context);
      yield {};
    },
  });
  const stream = client.stream('');
  stream.on('error', () => undefined);
  await once(stream, 'metadata');
  assert.equal(begun, true);
  stream.cancel();
});

test('a reader that is slow holds the producer back, and one that leaves ends it', async (t) => {
  let produced = 0;
  const ended = Promise.withResolvers<void>();
  const { client } = await serve(t, {
    async *repeat() {
      try {
        for (;;) {
          produced += 1;
          yield { version: 'x'.repeat(16_000) };
        }
      } finally {
        ended.resolve();
      }
    },
  });
  const stream = client.stream('');
  stream.on('error', () => undefined);
  await once(stream, 'readable');
  // Until nothing more is produced: the windows are full.
  let before: number;
  do {
    before = produced;
    await new Promise((resolve) => {
      setTimeout(resolve, 50);
    });
  } while (produced > before);
  assert.ok(produced < 200, `${produced} messages were produced for a reader that reads none`);
  stream.cancel();
  await ended.promise;
});

test('a stream that waits is ended by its caller, by a deadline and by the closing server', async (t) => {
  const contexts: CallContext[] = [];
  const { client, server } = await serve(t, {
    async *repeat(_, context) {
      contexts.push(context);
      yield { version: 'first' };
      await aborted(context);
    },
  });
  const open = async (options: grpc.CallOptions): Promise<grpc.ClientReadableStream<string>> => {
    const stream = client.stream('', options);
    const [first] = await once(stream, 'data');
    assert.equal(first, 'first');
    return stream;
  };
  const cancelled = await open({});
  cancelled.cancel();
  await assert.rejects(once(cancelled, 'end'), { code: Code.Cancelled });
  const late = await open({ deadline: Date.now() + 200 });
  await assert.rejects(once(late, 'end'), { code: Code.DeadlineExceeded });
  const closed = await open({});
  const end = assert.rejects(once(closed, 'end'), {
    code: Code.Unavailable,
    details: 'the daemon is shutting down',
  });
  await Promise.all([end, server.close(60_000)]);
  assert.deepEqual(
    contexts.map(({ signal }) => (signal.reason as RpcError).code),
    [Code.Cancelled, Code.Cancelled, Code.Unavailable],
  );
});

test('a stream of requests gets one answer', async (t) => {
  const { client } = await serve(t, {
    async join(requests) {
      const parts: string[] = [];
      for await (const { version } of requests) parts.push(version);
      return { version: parts.join('') };
    },
  });
  const { call, response } = client.join();
  for (const part of ['a', 'b', 'c']) call.write(part);
  call.end();
  assert.equal(await response, 'abc');
});

test('a stream of requests can be answered before it ends', async (t) => {
  const { client } = await serve(t, {
    async join(requests) {
      for await (const { version } of requests) if (version === 'stop') break;
      throw failedPrecondition('enough');
    },
  });
  const { call, response } = client.join();
  call.on('error', () => undefined);
  call.write('stop');
  await assert.rejects(response, { code: Code.FailedPrecondition, details: 'enough' });
});

for (const how of ['cancelled', 'lost']) {
  test(`a stream of requests that is ${how} fails its reader, and does not look finished`, async (t) => {
    const outcome: unknown[] = [];
    const arrived: (() => void)[] = [];
    const over: (() => void)[] = [];
    const { address } = await serve(t, {
      async join(requests) {
        try {
          for await (const _ of requests) arrived.shift()!();
          outcome.push('finished');
        } catch (error) {
          outcome.push((error as RpcError).code);
          throw error;
        } finally {
          over.shift()!();
        }
        return {};
      },
    });
    for (let round = 0; round < 50; round += 1) {
      const { socket, stream } = rawCall(address, 'Join');
      const first = new Promise<void>((resolve) => void arrived.push(resolve));
      const last = new Promise<void>((resolve) => void over.push(resolve));
      stream.write(Buffer.alloc(5));
      await first;
      if (how === 'cancelled') stream.close(constants.NGHTTP2_CANCEL);
      else socket.destroy();
      await last;
      socket.destroy();
    }
    assert.deepEqual(new Set(outcome), new Set([Code.Cancelled]));
  });
}

test('both sides talk at once', async (t) => {
  const { client } = await serve(t, {
    async *chat(requests) {
      yield { version: 'welcome' };
      for await (const { version } of requests) yield { version: version.toUpperCase() };
      yield { version: 'bye' };
    },
  });
  const call = client.chat();
  const received: string[] = [];
  call.on('data', (text: string) => {
    received.push(text);
    if (text === 'welcome') call.write('a');
    if (text === 'A') call.write('b');
    if (text === 'B') call.end();
  });
  await once(call, 'end');
  assert.deepEqual(received, ['welcome', 'A', 'B', 'bye']);
});
