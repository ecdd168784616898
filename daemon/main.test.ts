import * as grpc from '@grpc/grpc-js';
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { ServerResponse } from '../proto/gen/containerd/services/introspection.ts';
import {
  HealthCheckResponse,
  HealthCheckResponse_ServingStatus as Status,
} from '../proto/gen/grpc/health/v1.ts';
import { defaultConfig, parseConfig } from './config.ts';

const main = join(import.meta.dirname, 'main.ts');

class Moord {
  readonly process: ChildProcess;
  readonly exited: Promise<number | string>;
  /** When nobody can write any more, helper processes included. */
  readonly closed: Promise<unknown>;
  log = '';
  output = '';

  constructor(args: readonly string[], env: NodeJS.ProcessEnv = {}) {
    this.process = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', main, ...args], {
      env: { ...process.env, ...env },
    });
    this.process.stdout!.setEncoding('utf8').on('data', (text: string) => (this.output += text));
    this.process.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.log += text;
      this.process.emit('log');
    });
    this.exited = once(this.process, 'exit').then(([code, signal]) => (code ?? signal) as number | string);
    this.closed = once(this.process, 'close');
  }

  /** Waits until the log has a line that matches. */
  async logged(pattern: RegExp): Promise<void> {
    const gone = this.exited.then((status) => {
      throw new Error(`moord ended with ${status}: ${this.log}`);
    });
    gone.catch(() => undefined);
    while (!pattern.test(this.log)) await Promise.race([once(this.process, 'log'), gone]);
  }
}

interface Place {
  readonly directory: string;
  readonly address: string;
  readonly args: readonly string[];
}

function place(t: TestContext): Place {
  const directory = mkdtempSync(join(tmpdir(), 'moor-main-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const address = join(directory, 'moor.sock');
  const args = ['--address', address, '--root', join(directory, 'root'), '--state', join(directory, 'state')];
  return { directory, address, args };
}

async function start(t: TestContext, args: readonly string[], env?: NodeJS.ProcessEnv): Promise<Moord> {
  const moord = new Moord(args, env);
  t.after(async () => {
    moord.process.kill('SIGKILL');
    await moord.exited;
  });
  await moord.logged(/"msg":"serving"/);
  return moord;
}

async function call<T>(address: string, path: string, decode: (bytes: Buffer) => T): Promise<T> {
  const client = new grpc.Client(`unix:${address}`, grpc.credentials.createInsecure());
  try {
    return await new Promise((resolve, reject) => {
      const encode = (): Buffer => Buffer.alloc(0);
      client.makeUnaryRequest(path, encode, decode, undefined, (error, value) =>
        error === null ? resolve(value!) : reject(error),
      );
    });
  } finally {
    client.close();
  }
}

const uuid = async (address: string): Promise<string> =>
  (
    await call(address, '/containerd.services.introspection.v1.Introspection/Server', (b) =>
      ServerResponse.decode(b),
    )
  ).uuid;

test('it serves, says so to its service manager, and leaves in good order', async (t) => {
  const { directory, address, args } = place(t);
  const program = `
    use Socket; alarm 20; my $path = shift; socket(my $s, AF_UNIX, SOCK_DGRAM, 0); bind($s, pack_sockaddr_un($path)) or die;
    $| = 1; print "ready\\n"; for (1..2) { recv($s, my $m, 4096, 0); print "$m\\n---\\n"; }`;
  const socket = join(directory, 'notify');
  const manager = spawn('perl', ['-e', program, socket], { stdio: ['ignore', 'pipe', 'inherit'] });
  let told = '';
  manager.stdout.setEncoding('utf8').on('data', (text: string) => (told += text));
  const managerLeft = once(manager, 'close');
  await once(manager.stdout, 'data');

  const moord = await start(t, args, { NOTIFY_SOCKET: socket });
  const { status } = await call(address, '/grpc.health.v1.Health/Check', (b) =>
    HealthCheckResponse.decode(b),
  );
  assert.equal(status, Status.SERVING);
  assert.equal(statSync(address).mode & 0o777, 0o600);
  assert.equal(statSync(join(directory, 'root')).mode & 0o777, 0o711);
  moord.process.kill('SIGTERM');
  assert.equal(await moord.exited, 0, moord.log);
  await managerLeft;
  assert.equal(told, `ready\nREADY=1\nMAINPID=${moord.process.pid}\n---\nSTOPPING=1\n---\n`);
  assert.deepEqual([existsSync(address), existsSync(`${address}.ttrpc`)], [false, false]);
});

test('a second daemon on the same directories is refused, with the pid of the first', async (t) => {
  const { directory, address, args } = place(t);
  const first = await start(t, args);
  for (const same of ['root', 'state']) {
    const root = join(directory, same === 'root' ? 'root' : 'root2');
    const state = join(directory, same === 'state' ? 'state' : 'state2');
    const second = new Moord(['--address', `${address}2`, '--root', root, '--state', state]);
    assert.equal(await second.exited, 1);
    await second.closed;
    assert.equal(
      second.log,
      `moord: ${join(directory, same)} is in use by another daemon (pid ${first.process.pid})\n`,
    );
  }
  assert.match(await uuid(address), /^[0-9a-f-]{36}$/);
});

test('a daemon that was killed is followed by one with the same identity', async (t) => {
  const { address, args } = place(t);
  const first = await start(t, args);
  const identity = await uuid(address);
  first.process.kill('SIGKILL');
  await first.exited;
  await start(t, args);
  assert.equal(await uuid(address), identity);
});

test('configurations are printed: the default one, and the one that flags and files make', async (t) => {
  const { directory, args } = place(t);
  const byDefault = new Moord(['config', 'default']);
  assert.equal(await byDefault.exited, 0);
  await byDefault.closed;
  assert.deepEqual(parseConfig(byDefault.output, 'x'), defaultConfig());
  const file = join(directory, 'config.toml');
  writeFileSync(file, 'oom_score = 5\n');
  const dump = new Moord(['--config', file, ...args, 'config', 'dump']);
  assert.equal(await dump.exited, 0);
  await dump.closed;
  const dumped = parseConfig(dump.output, 'x');
  assert.deepEqual([dumped.oom_score, dumped.root], [5, join(directory, 'root')]);
});

test('a wrong configuration is refused by file and line', async (t) => {
  const { directory, args } = place(t);
  const file = join(directory, 'config.toml');
  writeFileSync(file, '\n[grpc]\nadress = "/a"\n');
  const moord = new Moord(['--config', file, ...args]);
  assert.equal(await moord.exited, 1);
  await moord.closed;
  assert.equal(moord.log, `moord: ${file}:3: unknown key grpc.adress\n`);
});

for (const [line, message] of [
  [
    'disabled_plugins = ["io.containerd.grpc.v1.nope"]',
    'disabled_plugins: there is no plugin io.containerd.grpc.v1.nope',
  ],
  [
    'disabled_plugins = ["io.containerd.metadata.v1.bolt"]',
    'disabled_plugins: the daemon cannot be without io.containerd.metadata.v1.bolt',
  ],
  [
    'required_plugins = ["io.containerd.nri.v1.nri"]',
    'required_plugins: there is no plugin io.containerd.nri.v1.nri',
  ],
] as const) {
  test(`${line} is refused`, async (t) => {
    const { directory, args } = place(t);
    const file = join(directory, 'config.toml');
    writeFileSync(file, line);
    const moord = new Moord(['--config', file, ...args, '--log-level', 'fatal']);
    assert.equal(await moord.exited, 1);
    await moord.closed;
    assert.equal(moord.log, `moord: ${message}\n`);
  });
}

test('the version is that of the package', async () => {
  const manifest = JSON.parse(readFileSync(join(import.meta.dirname, '../package.json'), 'utf8')) as {
    version: string;
  };
  const moord = new Moord(['--version']);
  assert.equal(await moord.exited, 0);
  await moord.closed;
  assert.equal(moord.output, `moord ${manifest.version}\n`);
});
