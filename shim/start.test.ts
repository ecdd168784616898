import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  rmdirSync,
  statSync,
} from 'node:fs';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { mkfifo } from '../native/native.ts';
import { BootstrapParams, BootstrapResult } from '../proto/gen/containerd/runtime/bootstrap.ts';
import { Options } from '../proto/gen/containerd/runtime/runc.ts';
import { TaskDefinition } from '../proto/gen/containerd/task/v2.ts';
import { RuntimeInfo } from '../proto/gen/containerd/types/runtime_info.ts';
import { Any } from '../proto/gen/google/protobuf/any.ts';
import { TtrpcClient } from '../ttrpc/client.ts';
import { pack } from './any.ts';
import { eventually, Workshop } from './fixture.test.ts';

const MAIN = new URL('main.ts', import.meta.url).pathname;

/** Runs the shim as a containerd does. */
function contract(
  workshop: Workshop,
  args: string[],
  options: { input?: Uint8Array; environment?: object } = {},
): Buffer {
  const bundle = join(workshop.folder, 'bundle');
  mkdirSync(bundle, { recursive: true });
  return execFileSync(process.execPath, ['--disable-warning=ExperimentalWarning', MAIN, ...args], {
    cwd: bundle,
    input: options.input ?? Buffer.alloc(0),
    env: { PATH: process.env['PATH'], MOOR_RUNC_ROOT: join(workshop.folder, 'runc'), ...options.environment },
  });
}

async function shutdown(address: string): Promise<void> {
  const path = address.replace('unix://', '');
  using client = await TtrpcClient.connect(path);
  await client.service(TaskDefinition).shutdown({ id: 'i' });
  await client.closed;
  await eventually('the socket to go', () => !existsSync(path));
}

test('start answers with the address of a shim that serves, alone, behind a private socket', async () => {
  await using workshop = new Workshop();
  const daemon = join(workshop.folder, 'daemon.sock');
  const bundle = join(workshop.folder, 'bundle');
  const flags = ['-namespace', workshop.namespace, '-address', daemon, '-publish-binary', '/x', '-id', 'i'];
  const address = contract(workshop, [...flags, 'start']).toString();
  assert.match(address, new RegExp(`^unix://${workshop.folder}/s/[0-9a-f]{16}$`));
  assert.equal(readFileSync(join(bundle, 'address'), 'utf8'), address);
  const path = address.replace('unix://', '');
  assert.equal(statSync(path).mode & 0o777, 0o600);
  using client = await TtrpcClient.connect(path);
  const { shimPid } = await client.service(TaskDefinition).connect({ id: 'i' });
  const [, , , , session] = readFileSync(`/proc/${shimPid}/stat`, 'latin1')
    .replace(/^.*\) /, '')
    .split(' ');
  assert.ok(session !== undefined);
  assert.equal(readFileSync(`/proc/${shimPid}/comm`, 'latin1'), 'moor-shim\n');
  await shutdown(address);
});

test('start speaks the dialect of the daemon', async () => {
  await using workshop = new Workshop();
  const flags = ['-namespace', workshop.namespace, '-address', '/', '-id', 'i'];
  const environment = { MAX_SHIM_VERSION: '3' };
  const socket = ['-socket', join(workshop.folder, 'mine')];
  const answer = contract(workshop, [...flags, ...socket, 'start'], { environment }).toString();
  assert.deepEqual(JSON.parse(answer), {
    version: 3,
    address: `unix://${workshop.folder}/mine`,
    protocol: 'ttrpc',
  });
  await shutdown(`unix://${workshop.folder}/mine`);
  const params = BootstrapParams.fromPartial({
    instanceId: 'i',
    namespace: workshop.namespace,
    socketDir: join(workshop.folder, 'sockets'),
  });
  const input = BootstrapParams.encode(params).finish();
  const result = BootstrapResult.decode(contract(workshop, [...flags, 'start'], { input }));
  assert.equal(result.version, 3);
  assert.ok(result.address.startsWith(`unix://${workshop.folder}/sockets/`), result.address);
  await shutdown(result.address);
});

test('the shim joins the cgroup that the options name, and writes its log to a reader', async () => {
  await using workshop = new Workshop();
  const group = `/${workshop.namespace}`;
  mkdirSync(join('/sys/fs/cgroup/pids', group));
  mkdirSync(join(workshop.folder, 'bundle'));
  const fifo = join(workshop.folder, 'bundle/log');
  mkfifo(fifo, 0o600);
  const log = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK);
  const encoded = Options.encode(Options.fromPartial({ shimCgroup: group })).finish();
  const input = Any.encode(pack('containerd.runc.v1.Options', encoded)).finish();
  const flags = ['-namespace', workshop.namespace, '-address', '/x', '-id', 'i', '-debug'];
  const path = join(workshop.folder, 's');
  const address = contract(workshop, [...flags, '-socket', path, 'start'], { input }).toString();
  using client = await TtrpcClient.connect(path);
  const { shimPid } = await client.service(TaskDefinition).connect({ id: 'i' });
  assert.match(readFileSync(`/proc/${shimPid}/cgroup`, 'latin1'), new RegExp(`pids:${group}\n`));
  const buffer = Buffer.alloc(4096);
  const line = buffer.toString('utf8', 0, readSync(log, buffer));
  assert.equal((JSON.parse(line.split('\n')[0]!) as { id: string }).id, 'i');
  await shutdown(address);
  await eventually('the shim to go', () => !existsSync(`/proc/${shimPid}`));
  rmdirSync(join('/sys/fs/cgroup/pids', group));
});

test('a start that cannot be is an error with its cause', async () => {
  await using workshop = new Workshop();
  assert.throws(() => contract(workshop, ['start']), /the namespace must be given/);
  assert.throws(() => contract(workshop, ['-namespace', 'n', 'start']), /needs the id/);
  assert.throws(() => contract(workshop, ['-namespace', 'n', '-id', 'i', 'nope']), /unknown action nope/);
  assert.throws(() => contract(workshop, ['-nope']), /unknown flag -nope/);
});

test('the shim says what it is', async () => {
  await using workshop = new Workshop();
  assert.match(contract(workshop, ['-v']).toString(), /^containerd-shim-moor-v1:\n {2}Version: {2}\d/);
  const encoded = Options.encode(Options.fromPartial({ binaryName: '' })).finish();
  const input = Any.encode(pack('containerd.runc.v1.Options', encoded)).finish();
  const info = RuntimeInfo.decode(contract(workshop, ['-info'], { input }));
  assert.equal(info.name, 'io.containerd.moor.v1');
  assert.equal(info.options?.typeUrl, 'containerd.runc.v1.Options');
  assert.match(info.features!.value.toString(), /ociVersionMin/);
});

test('neither the runtime nor the container inherits what the shim has open', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  const program = join(workshop.folder, 'spy-runc');
  const list = join(workshop.folder, 'descriptors');
  writeFileSync(program, `#!/bin/sh\nls -l /proc/$$/fd >> ${list}\nexec runc "$@"\n`, { mode: 0o755 });
  const options = Options.encode(Options.fromPartial({ binaryName: program })).finish();
  await shim.run({ options: pack('containerd.runc.v1.Options', options) });
  const ours = readFileSync(list, 'utf8')
    .split('\n')
    .filter(
      (line) =>
        line.includes('->') && ![program, '/dev/null', 'runc.log', list].some((each) => line.includes(each)),
    );
  assert.deepEqual(ours, []);
});
