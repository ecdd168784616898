/**
 * The daemons that the client is tested against: Debian's containerd and Moor's own, each private to the test, in a
 * directory that is removed with it.
 */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { connect } from './client.ts';

const repository = resolve(import.meta.dirname, '..');

/** Of this test's own: the runc of Debian's shim keeps its state outside of the peer's directory. */
export const namespace = `moor-test-${process.pid}`;

/** A running daemon and what tests need around it. */
export class Peer implements AsyncDisposable {
  readonly name: PeerName;
  readonly directory: string;
  readonly address: string;
  readonly rootfs: string;
  #daemon: ChildProcess | undefined;

  private constructor(name: PeerName) {
    this.name = name;
    this.directory = mkdtempSync('/tmp/moor-client-');
    this.address = join(this.directory, 'sock');
    this.rootfs = makeRootfs(join(this.directory, 'rootfs'));
  }

  static async start(name: PeerName): Promise<Peer> {
    const peer = new Peer(name);
    await peer.start();
    return peer;
  }

  /** Starts the daemon and waits until it answers. */
  async start(): Promise<void> {
    const [command, ...args] = commands[this.name](this);
    const log = openSync(join(this.directory, 'log'), 'a');
    this.#daemon = spawn(command!, args, {
      stdio: ['ignore', log, log],
      env: { ...process.env, MOOR_SOURCES: '1' },
    });
    try {
      using client = await connect({ address: this.address, patience: 20_000 });
      await client.version({ timeout: 10_000 });
    } catch (error) {
      throw new Error(`${this.name} does not answer: ${this.log}`, { cause: error });
    }
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const daemon = this.#daemon;
    this.#daemon = undefined;
    if (daemon === undefined || daemon.exitCode !== null || daemon.signalCode !== null) return;
    const gone = new Promise((done) => daemon.once('exit', done));
    daemon.kill(signal);
    await gone;
  }

  /** Where tests have their FIFOs made. */
  get fifoDirectory(): string {
    return join(this.directory, 'fifo');
  }

  /** What clients have left behind there. */
  fifoDirectories(): string[] {
    return existsSync(this.fifoDirectory) ? readdirSync(this.fifoDirectory) : [];
  }

  get log(): string {
    return readFileSync(join(this.directory, 'log'), 'utf8');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill('SIGTERM');
    for (const target of mountsUnder(this.directory)) execFileSync('umount', ['--lazy', target]);
    rmSync(this.directory, { recursive: true, force: true });
    rmSync(join('/run/containerd/runc', namespace), { recursive: true, force: true });
  }
}

export type PeerName = 'containerd' | 'moord';

const commands: { readonly [name in PeerName]: (peer: Peer) => string[] } = {
  containerd: (peer) => {
    const config = join(peer.directory, 'config.toml');
    writeFileSync(
      config,
      [
        'version = 2',
        `root = "${peer.directory}/root"`,
        `state = "${peer.directory}/state"`,
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]',
        `[grpc]\naddress = "${peer.address}"`,
        `[ttrpc]\naddress = "${peer.address}.ttrpc"`,
      ].join('\n'),
    );
    return ['containerd', '-c', config];
  },
  moord: (peer) => [
    join(repository, 'bin/moord'),
    '--address',
    peer.address,
    '--root',
    join(peer.directory, 'root'),
    '--state',
    join(peer.directory, 'state'),
    ...spawnFlags(peer),
  ],
};

/** `TEST_SHIM_SPAWN=exec` has all shims started afresh, as in `test/`. */
function spawnFlags({ directory }: Peer): string[] {
  const spawn = process.env['TEST_SHIM_SPAWN'];
  if (spawn === undefined) return [];
  const config = join(directory, 'moord.toml');
  writeFileSync(config, `version = 2\n[shim]\nspawn = "${spawn}"\n`);
  return ['--config', config];
}

/** Those that this host has. */
export const peers: readonly PeerName[] = [
  ...(existsSync('/usr/bin/containerd') ? (['containerd'] as const) : []),
  ...(existsSync(join(repository, 'daemon/main.ts')) ? (['moord'] as const) : []),
];

/** A root filesystem of Debian's static busybox. */
function makeRootfs(directory: string): string {
  for (const name of ['bin', 'dev', 'etc', 'proc', 'root', 'sys', 'tmp']) {
    mkdirSync(join(directory, name), { recursive: true });
  }
  cpSync('/bin/busybox', join(directory, 'bin/busybox'));
  const applets = 'sh sleep echo cat tty stty env id head wc kill true false hostname pwd ls ps dd'.split(
    ' ',
  );
  for (const applet of applets) symlinkSync('busybox', join(directory, 'bin', applet));
  writeFileSync(join(directory, 'etc/passwd'), 'root:x:0:0::/root:/bin/sh\nsailor:x:1000:1001::/:/bin/sh\n');
  writeFileSync(join(directory, 'etc/group'), 'root:x:0:\ncrew:x:1001:\ndeck:x:1002:sailor\n');
  return directory;
}

function mountsUnder(directory: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((target) => target.startsWith(`${directory}/`))
    .reverse();
}

/** All of a stream as text. */
export async function textOf(stream: AsyncIterable<Buffer> | undefined): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream ?? []) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}
