import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { test } from 'node:test';
import { TtrpcClient } from './client.ts';
import { Code, isCode, RpcError } from './errors.ts';
import { fails, Note, Notes, rawServer, serveNotes, setUp, socketDirectory } from './fixture.test.ts';
import { FrameType } from './frame.ts';
import { errorFrame } from './message.ts';
import { TtrpcServer } from './server.ts';

test('a lost connection fails its calls with Unavailable and aborts those who serve them', async (t) => {
  const serving = Promise.withResolvers<AbortSignal>();
  const { client, notes, server } = await setUp(t, {
    wait: (request, context) => {
      serving.resolve(context.signal);
      return serveNotes.wait(request, context);
    },
  });
  const waiting = notes.wait({});
  const signal = await serving.promise;
  client.close();
  await assert.rejects(waiting, fails(Code.Unavailable));
  await client.closed;
  if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve));
  assert.ok(isCode(signal.reason, Code.Cancelled));
  await assert.rejects(notes.echo({}), fails(Code.Unavailable, /closed/));
  await server.close();
  assert.equal(server.connections, 0);
});

test('nobody at the address is Unavailable and names it', async (t) => {
  const path = `${await socketDirectory(t)}/nobody`;
  await assert.rejects(TtrpcClient.connect(path), fails(Code.Unavailable, new RegExp(path)));
  await assert.rejects(TtrpcClient.connect('@ttrpc-nobody'), fails(Code.Unavailable, /@ttrpc-nobody/));
  await assert.rejects(TtrpcClient.connect(path, { signal: AbortSignal.abort() }), fails(Code.Cancelled));
});

test('an abstract socket works under both spellings', async () => {
  const name = `ttrpc-test-${process.pid}`;
  await using server = new TtrpcServer().add(Notes, serveNotes);
  await server.listen(`@${name}`);
  for (const path of [`@${name}`, `\0${name}`]) {
    using client = await TtrpcClient.connect(path);
    assert.equal((await client.service(Notes).echo({ count: 3 })).count, 3);
  }
});

test('an oversized response fails its call with ResourceExhausted and the others with Unavailable', async (t) => {
  const path = `${await socketDirectory(t)}/s`;
  const { server, peer } = await rawServer(path);
  t.after(() => server.close());
  const client = await TtrpcClient.connect(path);
  const notes = client.service(Notes);
  const first = notes.echo({});
  const second = notes.echo({});
  await (await peer).receive();
  (await peer).socket.write(Uint8Array.of(0xff, 0, 0, 0, 0, 0, 0, 1, 2, 0));
  await assert.rejects(first, fails(Code.ResourceExhausted));
  await assert.rejects(second, fails(Code.Unavailable, /exceeds the limit/));
  await client.closed;
});

test('a server that dies inside a frame fails the call with Unavailable', async (t) => {
  const path = `${await socketDirectory(t)}/s`;
  const { server, peer } = await rawServer(path);
  t.after(() => server.close());
  const client = await TtrpcClient.connect(path);
  const call = client.service(Notes).echo({});
  await (await peer).receive();
  (await peer).socket.end(Uint8Array.of(0, 0, 0, 9, 0, 0, 0, 1, 2));
  await assert.rejects(call, fails(Code.Unavailable, /inside a frame/));
});

test('responses that make no sense fail their call only', async (t) => {
  const path = `${await socketDirectory(t)}/s`;
  const { server, peer: accepted } = await rawServer(path);
  t.after(() => server.close());
  using client = await TtrpcClient.connect(path);
  const notes = client.service(Notes);
  const data = notes.echo({});
  const garbage = notes.echo({});
  const strange = notes.echo({});
  const empty = notes.echo({});
  const peer = await accepted;
  await peer.receive();
  peer.send(99, FrameType.Response, 0);
  peer.send(1, FrameType.Data, 0);
  peer.send(3, FrameType.Response, 0, Uint8Array.of(0x12, 0xff));
  peer.socket.write(errorFrame(5, new RpcError(77 as Code, 'odd')));
  peer.send(7, FrameType.Response, 0);
  await assert.rejects(data, fails(Code.Internal));
  await assert.rejects(garbage, fails(Code.Internal, /cannot be decoded/));
  await assert.rejects(strange, fails(Code.Unknown, /odd/));
  assert.deepEqual(await empty, Note.fromPartial({}), 'a response without status is a success');
  peer.socket.destroy();
});

test('a client over a socket that is gone already is closed', async (t) => {
  const { path } = await setUp(t);
  const socket = connect({ path });
  socket.destroy();
  const client = new TtrpcClient(socket);
  await client.closed;
  await assert.rejects(client.service(Notes).echo({}), fails(Code.Unavailable));
});
