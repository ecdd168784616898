/**
 * Both sides against Go's ttrpc, as Debian ships it: containerd's shim calls our server and is called by our client,
 * and containerd itself is called. Skipped where these programs or the rights to run containers are missing.
 */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants } from 'node:fs';
import { copyFile, mkdir, open, readFile, rm, writeFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { test, type TestContext } from 'node:test';
import { promisify } from 'node:util';
import { BinaryReader, BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { TtrpcClient } from './client.ts';
import { Code, isCode } from './errors.ts';
import { socketDirectory } from './fixture.test.ts';
import { TtrpcServer } from './server.ts';
import type { CallContext, MessageType } from './service.ts';

const run = promisify(execFile);

/** A message without a schema: fields by number. What was received has bytes where strings and messages were sent. */
interface Fields {
  [field: number]: string | number | Uint8Array | Fields;
}

const Fields: MessageType<Fields> = {
  encode(message, writer = new BinaryWriter()) {
    for (const [field, value] of Object.entries(message)) {
      const tag = Number(field) << 3;
      if (typeof value === 'number') writer.uint32(tag).uint32(value);
      else if (typeof value === 'string') writer.uint32(tag | 2).string(value);
      else if (value instanceof Uint8Array) writer.uint32(tag | 2).bytes(value);
      else Fields.encode(value as Fields, writer.uint32(tag | 2).fork()).join();
    }
    return writer;
  },
  decode(input) {
    const reader = input instanceof BinaryReader ? input : new BinaryReader(input);
    const message: Fields = {};
    while (reader.pos < reader.len) {
      const [field, wireType] = reader.tag();
      if (wireType === WireType.Varint) message[field] = Number(reader.uint64());
      else if (wireType === WireType.LengthDelimited) message[field] = reader.bytes();
      else reader.skip(wireType, field);
    }
    return message;
  },
  fromPartial: (partial) => partial as Fields,
};

const text = (message: Fields, field: number) =>
  Buffer.from((message[field] as Uint8Array | undefined) ?? []).toString();
const unary = (name: string) =>
  ({ name, requestType: Fields, requestStream: false, responseType: Fields, responseStream: false }) as const;

const Task = {
  name: 'Task',
  fullName: 'containerd.task.v2.Task',
  methods: {
    state: unary('State'),
    create: unary('Create'),
    delete: unary('Delete'),
    connect: unary('Connect'),
    shutdown: unary('Shutdown'),
    wait: unary('Wait'),
    kill: unary('Kill'),
  },
} as const;

const Events = {
  name: 'Events',
  fullName: 'containerd.services.events.ttrpc.v1.Events',
  methods: { forward: unary('Forward') },
} as const;

const programs = [
  '/usr/bin/containerd',
  '/usr/bin/containerd-shim-runc-v2',
  '/usr/bin/ctr',
  '/usr/sbin/runc',
  '/bin/busybox',
];

function missing(): string | false {
  if (process.getuid?.() !== 0) return 'not root';
  return (
    programs.find((program) => {
      try {
        accessSync(program, constants.X_OK);
        return false;
      } catch {
        return true;
      }
    }) ?? false
  );
}

const isNotFound = (error: unknown) => isCode(error, Code.NotFound);

const namespace = `ttrpc-${process.pid}`;
/** The shim's own choice, whatever the address of its daemon. */
const runcRoot = `/run/containerd/runc/${namespace}`;

/** Debian's shim for one container that is created but never started. */
async function startShim(
  t: TestContext,
  directory: string,
  id: string,
  events: string,
): Promise<TtrpcClient> {
  const bundle = `${directory}/bundle`;
  await mkdir(`${bundle}/rootfs/bin`, { recursive: true });
  await copyFile('/bin/busybox', `${bundle}/rootfs/bin/sleep`);
  await run('runc', ['spec'], { cwd: bundle });
  const config = JSON.parse(await readFile(`${bundle}/config.json`, 'utf8')) as {
    process: Record<string, unknown>;
  };
  config.process = { ...config.process, terminal: false, args: ['/bin/sleep', '100'] };
  await writeFile(`${bundle}/config.json`, JSON.stringify(config));
  // The shim logs to a FIFO that must have a reader; opened for both, so that the opening does not wait.
  await run('mkfifo', [`${bundle}/log`]);
  const log = await open(`${bundle}/log`, 'r+');
  t.after(() => log.close());
  const starting = run(
    'containerd-shim-runc-v2',
    [
      '-namespace',
      namespace,
      '-id',
      id,
      '-address',
      `${directory}/none`,
      '-publish-binary',
      '/bin/true',
      'start',
    ],
    { cwd: bundle, env: { ...process.env, TTRPC_ADDRESS: events } },
  );
  // It reads its options to the end; there are none.
  starting.child.stdin?.end();
  const { stdout } = await starting;
  const socket = stdout.trim().replace(/^unix:\/\//, '');
  const client = await TtrpcClient.connect(socket);
  t.after(async () => {
    client.close();
    await rm(socket, { force: true });
    await run('runc', ['--root', runcRoot, 'delete', '--force', id]);
    await rm(runcRoot, { recursive: true });
  });
  return client;
}

test('a Go shim and ours call each other', { skip: missing() }, async (t) => {
  const directory = await socketDirectory(t);
  const id = `ttrpc-${process.pid}`;
  const forwarded = Promise.withResolvers<{ request: Fields; context: CallContext }>();
  const server = new TtrpcServer().add(Events, {
    forward: async (request, context) => {
      forwarded.resolve({ request, context });
      return {};
    },
  });
  await server.listen(`${directory}/events`);
  t.after(() => server.close({ graceMs: 0 }));
  const client = await startShim(t, directory, id, `${directory}/events`);
  const task = client.service(Task);

  const shimPid = Number((await task.connect({ 1: id }))[1]);
  t.after(() => {
    try {
      process.kill(shimPid, 'SIGKILL');
    } catch {
      // It has left by itself, as it should.
    }
  });
  assert.match(await readFile(`/proc/${shimPid}/cmdline`, 'utf8'), /containerd-shim-runc-v2/);
  await assert.rejects(task.state({ 1: 'nobody' }), isNotFound);

  const created = await task.create({ 1: id, 2: `${directory}/bundle` }, { timeout: 20_000 });
  const states = await Promise.all(Array.from({ length: 200 }, () => task.state({ 1: id })));
  for (const state of states) assert.deepEqual([text(state, 1), state[3]], [id, created[1]]);

  const { request, context } = await forwarded.promise;
  const envelope = Fields.decode(request[1] as Uint8Array);
  assert.deepEqual([text(envelope, 2), text(envelope, 3)], [namespace, '/tasks/create']);
  assert.deepEqual(context.metadata.get('containerd-namespace-ttrpc'), [namespace]);

  const waiting = task.wait({ 1: id });
  await assert.rejects(task.wait({ 1: id }, { timeout: 50 }), (error) =>
    isCode(error, Code.DeadlineExceeded),
  );
  await task.kill({ 1: id, 3: 9 });
  assert.equal((await waiting)[1], 137);
  await task.delete({ 1: id });
  // The shim exits while it answers: it may be gone before it has.
  await task
    .shutdown({ 1: id })
    .catch((error: unknown) => assert.ok(isCode(error, Code.Unavailable), String(error)));
  await client.closed;
});

test('a Go containerd takes our events', { skip: missing() }, async (t) => {
  const directory = await socketDirectory(t);
  const address = `${directory}/c.sock`;
  await writeFile(
    `${directory}/config.toml`,
    'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n',
  );
  const daemon = spawn(
    'containerd',
    [
      '--config',
      `${directory}/config.toml`,
      '--root',
      `${directory}/root`,
      '--state',
      `${directory}/state`,
      '-a',
      address,
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  const exited = once(daemon, 'exit');
  t.after(async () => {
    daemon.kill('SIGKILL');
    await exited;
  });
  for await (const line of createInterface(daemon.stderr))
    if (line.includes('containerd successfully booted')) break;
  daemon.stderr.resume();

  using client = await TtrpcClient.connect(`${address}.ttrpc`);
  const events = client.service(Events);
  const listener = spawn('ctr', ['-a', address, 'events'], { stdio: ['ignore', 'pipe', 'ignore'] });
  t.after(() => listener.kill('SIGKILL'));
  const lines = createInterface(listener.stdout)[Symbol.asyncIterator]();
  const heard = lines.next();

  const event = {
    1: 'containerd.events.TaskStart',
    2: Buffer.from(Fields.encode({ 1: 'c1', 2: 42 }).finish()),
  };
  const envelope = (topic: string): Fields => ({
    1: { 1: { 1: 1_700_000_000 }, 2: namespace, 3: topic, 4: event },
  });
  const subscribed = new AbortController();
  void heard.then(() => subscribed.abort());
  // The listener subscribes when it pleases; what is forwarded before that is not for it.
  while (!subscribed.signal.aborted) await events.forward(envelope('/tasks/start'), { timeout: 5000 });
  assert.match(String((await heard).value), / \/tasks\/start .*"c1".*42/);
  await assert.rejects(events.forward(envelope('no-slash')), (error) => isCode(error, Code.InvalidArgument));
  const missingMethod = client.service({ ...Events, methods: { other: unary('Other') } });
  await assert.rejects(missingMethod.other({}), (error) => isCode(error, Code.Unimplemented));
  const oversized = events.forward({ 1: { 3: 'x'.repeat(4 << 20) } });
  await assert.rejects(oversized, (error) => isCode(error, Code.ResourceExhausted));
});
