import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { openSocket } from './socket.ts';

const root = { uid: 0, gid: 0 };

/** Listens, has a child that has the socket as well, and says its pid. */
const LISTENER = `
  const server = require('node:net').createServer().listen(process.argv[1], () => {
    const stdio = ['ignore', 'ignore', 'ignore', server._handle.fd];
    const child = require('node:child_process').spawn('sleep', ['600'], { stdio, detached: true });
    child.once('spawn', () => console.log(child.pid));
  });
`;

function directory(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'moor-socket-'));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

test('only root may use the socket, or a group too when one is named', async (t) => {
  const path = join(directory(t), 'new', 'directories', 'socket');
  const umask = process.umask();
  closeSync(await openSocket(path, root));
  assert.equal(statSync(path).mode & 0o777, 0o600);
  closeSync(await openSocket(path, { uid: 0, gid: 12 }));
  const { mode, uid, gid } = statSync(path);
  assert.deepEqual([mode & 0o777, uid, gid], [0o660, 0, 12]);
  assert.equal(process.umask(), umask);
});

test("a dead daemon's socket is replaced", async (t) => {
  const path = join(directory(t), 'socket');
  closeSync(await openSocket(path, root));
  const inode = statSync(path).ino;
  const fd = await openSocket(path, root);
  const server = createServer((socket) => socket.end());
  await new Promise<void>((resolve) => {
    server.listen({ fd }, resolve);
  });
  await assert.rejects(openSocket(path, root), { message: `another daemon is serving ${path}` });
  assert.ok(statSync(path).ino > 0 && inode > 0);
  server.close();
});

test("a dead daemon's socket is replaced also while a child of its has it", async (t) => {
  const path = join(directory(t), 'socket');
  const dead = spawn(process.execPath, ['--eval', LISTENER, path], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [child] = (await once(dead.stdout, 'data')) as [Buffer];
  t.after(() => process.kill(Number(child), 'SIGKILL'));
  await assert.rejects(openSocket(path, root), { message: `another daemon is serving ${path}` });
  dead.kill('SIGKILL');
  await once(dead, 'exit');
  const early = connect(path);
  await once(early, 'connect');
  closeSync(await openSocket(path, root));
  early.destroy();
});

test('what is not a socket is left alone', async (t) => {
  const path = join(directory(t), 'file');
  writeFileSync(path, 'precious');
  await assert.rejects(openSocket(path, root), {
    message: `${path} is in the way: it exists and is not a socket`,
  });
  assert.equal(statSync(path).size, 8);
});

test('a path that is too long for a socket is named', async (t) => {
  const path = join(directory(t), 'x'.repeat(100));
  await assert.rejects(openSocket(path, root), {
    message: new RegExp(`^cannot listen on ${path}: .*ENAMETOOLONG`),
  });
});
