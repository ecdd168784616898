import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer as createHttp2Server, type ServerHttp2Stream } from 'node:http2';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { ServerResponse } from '../proto/gen/containerd/services/introspection.ts';
import { VersionResponse } from '../proto/gen/containerd/services/version.ts';
import { greet } from './greeting.ts';

let folder: string;
let path: string;

beforeEach(() => {
  folder = mkdtempSync('/tmp/moor-greeting-');
  path = join(folder, 's');
});
afterEach(() => rmSync(folder, { recursive: true }));

const version = VersionResponse.fromPartial({ version: '1.2.3', revision: 'abc' });
const server = ServerResponse.fromPartial({ uuid: 'u-1' });

const answers: Readonly<Record<string, Uint8Array>> = {
  '/containerd.services.version.v1.Version/Version': VersionResponse.encode(version).finish(),
  '/containerd.services.introspection.v1.Introspection/Server': ServerResponse.encode(server).finish(),
};

/** A daemon that answers by `answer`; it sees what was asked. */
async function daemon(
  answer: (stream: ServerHttp2Stream, message: Uint8Array) => void,
): Promise<AsyncDisposable & { asked: string[] }> {
  const asked: string[] = [];
  const listening = createHttp2Server();
  listening.on('stream', (stream, headers) => {
    stream.on('error', () => {});
    asked.push(`${headers[':path']} ${String(headers['containerd-namespace'])}`);
    answer(stream as ServerHttp2Stream, answers[headers[':path'] ?? ''] ?? new Uint8Array());
  });
  listening.on('sessionError', () => {});
  listening.listen(path);
  await once(listening, 'listening');
  return {
    asked,
    async [Symbol.asyncDispose]() {
      listening.close();
    },
  };
}

function succeed(stream: ServerHttp2Stream, message: Uint8Array, parts = 1): void {
  stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
  stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
  const header = Buffer.alloc(5);
  header.writeUInt32BE(message.length, 1);
  const whole = Buffer.concat([header, message]);
  const size = Math.ceil(whole.length / parts);
  for (let at = 0; at < whole.length; at += size) stream.write(whole.subarray(at, at + size));
  stream.end();
}

test('a daemon says who it is', async () => {
  await using peer = await daemon((stream, message) => succeed(stream, message));
  assert.deepEqual(await greet(path, 'here'), { version, server });
  assert.deepEqual(
    peer.asked.toSorted(),
    Object.keys(answers)
      .map((name) => `${name} here`)
      .toSorted(),
  );
});

test('its answer may come in pieces', async () => {
  await using _peer = await daemon((stream, message) => succeed(stream, message, 4));
  assert.deepEqual(await greet(path, 'here'), { version, server });
});

test('a failure is for the ordinary client', async () => {
  await using _peer = await daemon((stream) =>
    stream.respond({ ':status': 200, 'grpc-status': '12' }, { endStream: true }),
  );
  assert.equal(await greet(path, 'here'), undefined);
});

test('so is a socket that nobody listens on, or that is no daemon’s', async () => {
  assert.equal(await greet(path, 'here'), undefined);
  const stranger = createServer((socket) =>
    socket.on('error', () => {}).end('HTTP/1.1 400 Bad Request\r\n\r\n'),
  );
  stranger.listen(path);
  await once(stranger, 'listening');
  assert.equal(await greet(path, 'here'), undefined);
  stranger.close();
});

test('so is a daemon that says nothing for a second, or a namespace that is no name', async () => {
  await using _peer = await daemon(() => {});
  assert.equal(await greet(path, 'here'), undefined);
  assert.equal(await greet(path, 'n'.repeat(200)), undefined);
});
