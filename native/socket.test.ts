import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { createConnection, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  acceptUnix,
  listenUnix,
  peerPid,
  Poll,
  receiveFd,
  sendDatagram,
  sendFd,
  socketPair,
} from './native.ts';

const descriptors = () => readdirSync('/proc/self/fd').length;

test('a descriptor passed over a socket is the same file, close-on-exec', () => {
  const before = descriptors();
  const [here, there] = socketPair();
  assert.equal(receiveFd(there), undefined, 'nothing sent yet');
  const file = openSync(import.meta.filename, 'r');
  sendFd(here, file);
  const received = receiveFd(there);
  assert.ok(received !== undefined && received !== file);
  assert.equal(fstatSync(received).ino, fstatSync(file).ino);
  assert.match(readFileSync(`/proc/self/fdinfo/${received}`, 'latin1'), /flags:\s+02/);
  for (const fd of [here, there, file, received]) closeSync(fd);
  assert.equal(descriptors(), before);
});

test('a message without exactly one descriptor is EBADMSG, and leaves none open', () => {
  const folder = mkdtempSync(join(tmpdir(), 'moor-socket-'));
  const sender = join(folder, 'sender');
  // Sends 253 descriptors at once, the most that one message can carry; sendFd never sends more than one.
  const source = `
    #include <cstring>
    #include <sys/socket.h>
    int main() {
      char payload[] = "pts";
      alignas(cmsghdr) char control[CMSG_SPACE(253 * sizeof(int))] = {};
      iovec piece = {payload, sizeof payload};
      msghdr message = {};
      message.msg_iov = &piece;
      message.msg_iovlen = 1;
      message.msg_control = control;
      message.msg_controllen = sizeof control;
      cmsghdr* part = CMSG_FIRSTHDR(&message);
      part->cmsg_level = SOL_SOCKET;
      part->cmsg_type = SCM_RIGHTS;
      part->cmsg_len = CMSG_LEN(253 * sizeof(int));
      return sendmsg(3, &message, 0) == sizeof payload ? 0 : 1;
    }`;
  const compiled = spawnSync('g++', ['-x', 'c++', '-o', sender, '-'], { input: source, encoding: 'utf8' });
  assert.equal(compiled.status, 0, compiled.stderr);
  const [here, there] = socketPair();
  const before = descriptors();
  assert.equal(spawnSync(sender, [], { stdio: ['ignore', 'ignore', 'inherit', here] }).status, 0);
  assert.throws(() => receiveFd(there), { code: 'EBADMSG', syscall: 'recvmsg' });
  assert.equal(descriptors(), before);
  writeSync(here, 'only bytes');
  assert.throws(() => receiveFd(there), { code: 'EBADMSG' });
  closeSync(here);
  assert.throws(() => receiveFd(there), { code: 'EBADMSG' }, 'the end of the stream');
  closeSync(there);
  rmSync(folder, { recursive: true });
});

test('a listening socket wakes a poll, and what it accepts serves net', async () => {
  const before = descriptors();
  const folder = mkdtempSync(join(tmpdir(), 'moor-socket-'));
  const path = join(folder, 's');
  const listener = listenUnix(path, 1);
  assert.equal(acceptUnix(listener), undefined, 'nobody there yet');
  const accepted = new Promise<number>((resolve, reject) => {
    const poll = new Poll(listener, 'readable', () => {
      poll.close();
      const fd = acceptUnix(listener);
      if (fd === undefined) reject(new Error('woken for nothing'));
      else resolve(fd);
    });
  });
  const client = createConnection(path);
  const server = new Socket({ fd: await accepted });
  client.write('hello');
  const [data] = (await once(server, 'data')) as [Buffer];
  assert.equal(data.toString(), 'hello');
  client.destroy();
  server.destroy();
  await Promise.all([once(client, 'close'), once(server, 'close')]);
  closeSync(listener);
  rmSync(folder, { recursive: true });
  assert.equal(descriptors(), before);
});

test('the peer of a connection is the process that made it, gone or not', async () => {
  const before = descriptors();
  const folder = mkdtempSync(join(tmpdir(), 'moor-socket-'));
  const path = join(folder, 's');
  const listener = listenUnix(path, 1);
  const program = `use Socket; socket(my $s, AF_UNIX, SOCK_STREAM, 0) or die; connect($s, pack_sockaddr_un(shift)) or die $!;`;
  const child = spawn('perl', ['-e', program, path], { stdio: 'inherit' });
  assert.deepEqual(await once(child, 'exit'), [0, null]);
  const accepted = acceptUnix(listener)!;
  assert.equal(peerPid(accepted), child.pid);
  const [here, there] = socketPair();
  assert.deepEqual([peerPid(here), peerPid(there)], [process.pid, process.pid]);
  const file = openSync(import.meta.filename, 'r');
  assert.throws(() => peerPid(file), { code: 'ENOTSOCK', syscall: 'getsockopt' });
  for (const fd of [listener, accepted, here, there, file]) closeSync(fd);
  rmSync(folder, { recursive: true });
  assert.equal(descriptors(), before);
});

test('a socket path that is taken, too long or empty is refused and nothing is left', () => {
  const before = descriptors();
  const folder = mkdtempSync(join(tmpdir(), 'moor-socket-'));
  const path = join(folder, 's');
  const listener = listenUnix(path, 1);
  assert.ok(statSync(path).isSocket());
  assert.throws(() => listenUnix(path, 1), {
    code: 'EADDRINUSE',
    message: `bind ${path}: EADDRINUSE: Address already in use`,
  });
  const long = join(folder, 'x'.repeat(107 - folder.length));
  assert.equal(long.length, 108);
  assert.throws(() => listenUnix(long, 1), { code: 'ENAMETOOLONG' });
  closeSync(listenUnix(long.slice(0, -1), 1));
  assert.ok(existsSync(long.slice(0, -1)));
  assert.throws(() => listenUnix('', 1), { code: 'EINVAL' });
  assert.throws(() => listenUnix(`${folder}/a\0b`, 1), { name: 'TypeError' });
  closeSync(listener);
  rmSync(folder, { recursive: true });
  assert.equal(descriptors(), before);
});

test('sending to a peer that has gone is EPIPE, and to one that never reads EAGAIN', () => {
  const [here, there] = socketPair();
  assert.throws(
    () => {
      for (;;) sendFd(here, there);
    },
    { code: /^(EAGAIN|ETOOMANYREFS)$/ },
  );
  closeSync(there);
  closeSync(here);
  const [alone, gone] = socketPair();
  closeSync(gone);
  assert.throws(() => sendFd(alone, alone), { code: 'EPIPE', syscall: 'sendmsg' });
  closeSync(alone);
});

/** Node cannot open a datagram socket with a path; Perl, which every Debian has, can. */
function datagramReceiver(address: string): { ready: Promise<unknown>; received: Promise<string> } {
  const program = `
    use Socket; $| = 1; alarm 10;
    my $path = shift; $path =~ s/^\\@/\\0/;
    socket(my $socket, AF_UNIX, SOCK_DGRAM, 0) or die; bind($socket, pack_sockaddr_un($path)) or die $!;
    print "ready\\n"; recv($socket, my $message, 4096, 0); print $message;`;
  const child = spawn('perl', ['-e', program, address], { stdio: ['ignore', 'pipe', 'inherit'] });
  const chunks: string[] = [];
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => chunks.push(chunk));
  return {
    ready: once(child.stdout, 'data'),
    received: once(child, 'close').then(() => chunks.join('').replace('ready\n', '')),
  };
}

for (const kind of ['a path', 'an abstract name']) {
  test(`a datagram reaches the socket at ${kind}`, async () => {
    const directory = mkdtempSync(join(tmpdir(), 'moor-native-'));
    try {
      const address = kind === 'a path' ? join(directory, 'notify') : `@${join(directory, 'notify')}`;
      assert.throws(() => sendDatagram(address, 'x'), { syscall: 'sendto' });
      const { ready, received } = datagramReceiver(address);
      await ready;
      sendDatagram(address, 'READY=1\nMAINPID=7');
      assert.equal(await received, 'READY=1\nMAINPID=7');
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
}
