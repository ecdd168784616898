import * as grpc from '@grpc/grpc-js';
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { once } from 'node:events';
import { connect as connectHttp2, type IncomingHttpHeaders } from 'node:http2';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { Code, type RpcError, failedPrecondition, notFound } from '../../ttrpc/errors.ts';
import type { CallContext } from '../../ttrpc/service.ts';
import { aborted, rawCall, serve } from './fixture.test.ts';
import { leaseOf, namespaceOf } from './context.ts';

const failsWith = (response: Promise<unknown>, code: Code, details: string | RegExp): Promise<void> =>
  assert.rejects(response, (error: grpc.ServiceError) => {
    assert.equal(error.code, code);
    if (typeof details === 'string') assert.equal(error.details, details);
    else assert.match(error.details, details);
    return true;
  });

test('a call is answered', async (t) => {
  const { client } = await serve(t, { once: async ({ version }) => ({ version: `${version}!` }) });
  assert.equal(await client.unary('Once', 'hello').response, 'hello!');
  const answers = await Promise.all(
    Array.from({ length: 200 }, (_, i) => client.unary('Once', `${i}`).response),
  );
  assert.deepEqual(
    answers,
    Array.from({ length: 200 }, (_, i) => `${i}!`),
  );
});

test('an implementation knows the process of its caller, until the connection is gone', async (t) => {
  const arrived = Promise.withResolvers<CallContext>();
  const { client, address } = await serve(t, {
    once: async (_, { peerPid }) => ({ version: `${peerPid}` }),
    wait: async (_, context) => {
      arrived.resolve(context);
      await aborted(context);
      throw context.signal.reason;
    },
  });
  assert.equal(await client.unary('Once', '').response, `${process.pid}`);
  const { socket, stream } = rawCall(address, 'Wait');
  stream.end(Buffer.alloc(5));
  const context = await arrived.promise;
  assert.equal(context.peerPid, process.pid);
  socket.destroy();
  await aborted(context);
  while (context.peerPid !== undefined) await setImmediate();
});

test('an error arrives with its kind and text', async (t) => {
  const { client, log } = await serve(t, {
    once: async ({ version }) => {
      throw version === ''
        ? notFound('container "x": not found')
        : failedPrecondition('größer\n100 % "nötig"');
    },
  });
  await failsWith(client.unary('Once', '').response, Code.NotFound, 'container "x": not found');
  await failsWith(client.unary('Once', 'x').response, Code.FailedPrecondition, 'größer\n100 % "nötig"');
  assert.deepEqual(log, []);
});

test('what an implementation did not mean to throw is Unknown, and logged', async (t) => {
  const { client, log } = await serve(t, {
    once: async () => {
      throw new TypeError('x is undefined');
    },
  });
  await failsWith(client.unary('Once', '').response, Code.Unknown, 'x is undefined');
  assert.equal(log.length, 1);
  assert.equal(log[0]!.method, '/test.Echo/Once');
  assert.equal(log[0]!.err!.message, 'x is undefined');
});

test('an implementation that throws at once fails its call only', async (t) => {
  const { client } = await serve(t, {
    once: ({ version }) => {
      if (version === '') throw notFound('nothing');
      return Promise.resolve({ version });
    },
  });
  await failsWith(client.unary('Once', '').response, Code.NotFound, 'nothing');
  assert.equal(await client.unary('Once', 'x').response, 'x');
});

test('a text too long or malformed for a header is cut and mended', async (t) => {
  const { client } = await serve(t, {
    once: async ({ version }) => {
      throw notFound(version === 'long' ? 'ö'.repeat(100_000) : 'half \ud83d pair');
    },
  });
  await failsWith(client.unary('Once', 'long').response, Code.NotFound, /^ö{4096}…$/);
  await failsWith(client.unary('Once', 'half').response, Code.NotFound, 'half \ufffd pair');
});

test('a request that cannot be read is InvalidArgument', async (t) => {
  const { client } = await serve(t, { once: async () => ({}) });
  await failsWith(
    client.unary('Once', Buffer.from([0x0a, 0xff])).response,
    Code.InvalidArgument,
    /malformed Once request/,
  );
});

test('a method that is not there is Unimplemented', async (t) => {
  const { client } = await serve(t, {});
  await failsWith(client.unary('Missing', '').response, Code.Unimplemented, /Missing/);
});

test('who does not speak gRPC is told so', async (t) => {
  const { address } = await serve(t, {});
  const session = connectHttp2('http://localhost', { createConnection: () => connect(address) });
  const stream = session.request({ ':method': 'GET', ':path': '/' });
  const [headers] = (await once(stream, 'response')) as [IncomingHttpHeaders];
  assert.equal(headers[':status'], 415);
  session.close();
});

test('a compressed request is Unimplemented', async (t) => {
  const { address } = await serve(t, { once: async () => ({}) });
  const { socket, stream } = rawCall(address, 'Once');
  stream.end(Buffer.from([1, 0, 0, 0, 1, 0]));
  const [headers] = (await once(stream, 'response')) as [IncomingHttpHeaders];
  assert.equal(headers['grpc-status'], String(Code.Unimplemented));
  socket.destroy();
});

test('a deadline is kept by the server, whatever its caller does', async (t) => {
  const { address } = await serve(t, {
    once: async (_, context) => {
      await aborted(context);
      throw context.signal.reason;
    },
  });
  const { socket, stream } = rawCall(address, 'Once', { 'grpc-timeout': '20m' });
  stream.end(Buffer.alloc(5));
  const [headers] = (await once(stream, 'response')) as [IncomingHttpHeaders];
  assert.equal(headers['grpc-status'], String(Code.DeadlineExceeded));
  socket.destroy();
});

test('messages beyond the limit are refused both ways, and the connection goes on', async (t) => {
  const { client } = await serve(
    t,
    { once: async ({ version }) => ({ version: version === 'grow' ? 'x'.repeat(5000) : version }) },
    4096,
  );
  await failsWith(client.unary('Once', 'x'.repeat(5000)).response, Code.ResourceExhausted, /larger than max/);
  await failsWith(client.unary('Once', 'grow').response, Code.ResourceExhausted, /larger than max/);
  assert.equal(await client.unary('Once', 'x').response, 'x');
});

test('a cancelled call, a deadline and a lost connection abort the signal', async (t) => {
  const reasons: Promise<unknown>[] = [];
  const arrived = Array.from({ length: 3 }, () => Promise.withResolvers<void>());
  const { client, address } = await serve(t, {
    once: async (_, context) => {
      reasons.push(aborted(context));
      arrived[reasons.length - 1]!.resolve();
      await aborted(context);
      throw context.signal.reason;
    },
  });
  const { call, response } = client.unary('Once', '');
  await arrived[0]!.promise;
  call.cancel();
  await assert.rejects(response, { code: Code.Cancelled });
  assert.equal(((await reasons[0]) as RpcError).code, Code.Cancelled);

  // Long enough for the call to arrive on a busy machine.
  await assert.rejects(client.unary('Once', '', { deadline: Date.now() + 2000 }).response, {
    code: Code.DeadlineExceeded,
  });
  assert.equal(((await reasons[1]) as RpcError).code, Code.Cancelled);

  const raw = rawCall(address, 'Once');
  raw.stream.end(Buffer.alloc(5));
  await arrived[2]!.promise;
  raw.socket.destroy();
  assert.equal(((await reasons[2]) as RpcError).code, Code.Cancelled);
});

test('the signal of an answered call is left alone', async (t) => {
  let seen: AbortSignal | undefined;
  const { client } = await serve(t, {
    once: async (_, { signal }) => {
      seen = signal;
      return {};
    },
  });
  await client.unary('Once', '').response;
  // Another round trip: whatever belongs to the first call has happened by then.
  await client.unary('Once', '').response;
  assert.equal(seen!.aborted, false);
});

test('an implementation reads headers', async (t) => {
  const { client } = await serve(t, {
    once: async (_, context) => ({
      version: `${namespaceOf(context)} ${leaseOf(context)} ${context.metadata.get('x')?.join('+')}`,
    }),
  });
  const metadata = new grpc.Metadata();
  metadata.set('containerd-namespace', 'default');
  metadata.set('containerd-lease', 'l1');
  metadata.add('x', '1');
  metadata.add('x', '2');
  assert.equal(await client.unary('Once', '', {}, metadata).response, 'default l1 1+2');
  metadata.set('containerd-namespace', '../etc');
  await failsWith(
    client.unary('Once', '', {}, metadata).response,
    Code.InvalidArgument,
    /"..\/etc" must match/,
  );
  await failsWith(
    client.unary('Once', '').response,
    Code.FailedPrecondition,
    'namespace is required: failed precondition',
  );
});

test('closing ends calls that wait at once, and lets the others finish', async (t) => {
  const started = Promise.withResolvers<void>();
  const finish = Promise.withResolvers<void>();
  const waiting = Promise.withResolvers<void>();
  const { client, server, address } = await serve(t, {
    once: async () => {
      started.resolve();
      await finish.promise;
      return { version: 'done' };
    },
    wait: async (_, context) => {
      waiting.resolve();
      await aborted(context);
      throw context.signal.reason;
    },
  });
  const slow = client.unary('Once', '').response;
  const wait = client.unary('Wait', '').response;
  await Promise.all([started.promise, waiting.promise]);
  const closed = server.close(60_000);
  await failsWith(wait, Code.Unavailable, 'the daemon is shutting down');
  const refused = connect(address);
  await assert.rejects(once(refused, 'connect'), { code: 'ECONNREFUSED' });
  finish.resolve();
  assert.equal(await slow, 'done');
  await closed;
});

test('closing cuts what does not finish in time', async (t) => {
  const started = Promise.withResolvers<CallContext>();
  const { client, server } = await serve(t, {
    once: async (_, context) => {
      started.resolve(context);
      return new Promise<never>(() => undefined);
    },
  });
  const stuck = client.unary('Once', '').response;
  const context = await started.promise;
  const closed = server.close(10);
  await assert.rejects(stuck, { code: Code.Unavailable });
  await closed;
  assert.equal((context.signal.reason as RpcError).code, Code.Unavailable);
});
