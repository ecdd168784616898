/** Registries to pull from: Debian's, and one that does whatever a test wants. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type IncomingMessage, type ServerResponse, createServer } from 'node:http';
import { type AddressInfo, createServer as createNetServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { MadeImage, Piece } from './image.ts';

/** @returns whether the test is to be left out, with the reason */
export const withoutDebianRegistry: string | false =
  spawnSync('docker-registry', ['--version']).error === undefined
    ? false
    : 'docker-registry is not installed';

async function freePort(address: string): Promise<number> {
  const server = createNetServer().listen(0, address);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

const running = new Set<ChildProcess>();
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')));

export class DebianRegistry implements AsyncDisposable {
  readonly host: string;
  readonly #directory: string;
  readonly #process: ChildProcess;

  private constructor(host: string, directory: string, process: ChildProcess) {
    this.host = host;
    this.#directory = directory;
    this.#process = process;
    running.add(process);
    process.once('exit', () => running.delete(process));
  }

  /**
   * @param section goes into its configuration: `auth`, or `http` in its place (then `auth` may follow)
   * @param files are written beside its configuration, in the DIRECTORY that the section may name
   * @param address the IPv4 address it listens on
   */
  static async start(
    section = '',
    files: { readonly [name: string]: string } = {},
    address = '127.0.0.1',
  ): Promise<DebianRegistry> {
    const directory = mkdtempSync(join(tmpdir(), 'moor-registry-'));
    const host = `${address}:${await freePort(address)}`;
    for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text);
    const configuration = [
      'version: 0.1',
      'log: {level: error, accesslog: {disabled: true}}',
      `storage: {filesystem: {rootdirectory: ${directory}/data}}`,
      ...(section.startsWith('http:') ? [] : [`http: {addr: "${host}"}`]),
      section.replaceAll('DIRECTORY', directory).replace('ADDRESS', host),
    ].join('\n');
    writeFileSync(join(directory, 'config.yml'), configuration);
    const process = spawn('docker-registry', ['serve', join(directory, 'config.yml')], {
      stdio: 'ignore',
      env: { PATH: '/usr/bin', OTEL_TRACES_EXPORTER: 'none' },
    });
    const registry = new DebianRegistry(host, directory, process);
    await registry.#answers();
    return registry;
  }

  async #answers(): Promise<void> {
    for (let tries = 0; ; tries += 1) {
      const isUp = await fetch(`http://${this.host}/v2/`).then(
        () => true,
        () => false,
      );
      if (isUp) return;
      if (tries === 100) throw new Error('docker-registry does not answer');
      // It tells nobody when it listens.
      await delay(50);
    }
  }

  async put(repository: string, tag: string, image: MadeImage): Promise<void> {
    for (const blob of [image.config, ...image.layers]) await this.putBlob(repository, blob);
    await this.putManifest(repository, image.manifest.digest, image.manifest);
    await this.putManifest(repository, tag, image.manifest);
  }

  async putBlob(repository: string, { bytes, digest }: Piece): Promise<void> {
    const started = await fetch(`http://${this.host}/v2/${repository}/blobs/uploads/`, { method: 'POST' });
    const url = new URL(started.headers.get('location')!);
    url.searchParams.set('digest', digest);
    const headers = { 'content-type': 'application/octet-stream' };
    const { status } = await fetch(url, { method: 'PUT', body: new Uint8Array(bytes), headers });
    if (status !== 201) throw new Error(`blob: ${status}`);
  }

  async putManifest(repository: string, name: string, { bytes, mediaType }: Piece): Promise<void> {
    const url = `http://${this.host}/v2/${repository}/manifests/${name}`;
    const headers = { 'content-type': mediaType };
    const answer = await fetch(url, { method: 'PUT', body: new Uint8Array(bytes), headers });
    if (answer.status !== 201) throw new Error(`manifest: ${answer.status} ${await answer.text()}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const gone = once(this.#process, 'exit');
    if (running.has(this.#process)) {
      this.#process.kill('SIGKILL');
      await gone;
    }
    rmSync(this.#directory, { recursive: true });
  }
}

/** @returns whether it has answered; otherwise the registry does, as it should */
export type Trick = (request: IncomingMessage, response: ServerResponse, path: string) => boolean;

/** Serves what it is given, unless a trick is played. */
export class TrickyRegistry implements AsyncDisposable {
  readonly requests: string[] = [];
  readonly headers: IncomingMessage['headers'][] = [];
  trick: Trick = () => false;
  readonly #served = new Map<string, Piece>();
  readonly #server = createServer((request, response) => this.#answer(request, response));

  static async start(): Promise<TrickyRegistry> {
    const registry = new TrickyRegistry();
    registry.#server.listen(0, '127.0.0.1');
    await once(registry.#server, 'listening');
    return registry;
  }

  get host(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  put(repository: string, tag: string, { manifest, config, layers }: MadeImage): void {
    for (const piece of [config, ...layers])
      this.#served.set(`/v2/${repository}/blobs/${piece.digest}`, piece);
    this.putManifest(repository, tag, manifest);
  }

  putManifest(repository: string, tag: string, manifest: Piece): void {
    for (const name of [tag, manifest.digest])
      this.#served.set(`/v2/${repository}/manifests/${name}`, manifest);
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const path = new URL(request.url!, 'http://registry').pathname;
    this.requests.push(`${request.method} ${path}`);
    this.headers.push(request.headers);
    if (this.trick(request, response, path)) return;
    const piece = this.#served.get(path);
    if (piece === undefined) {
      response.writeHead(404).end();
      return;
    }
    const { bytes, mediaType, digest } = piece;
    const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
    response.writeHead(start > 0 ? 206 : 200, {
      'content-type': mediaType,
      'content-length': bytes.length - start,
      'docker-content-digest': digest,
      ...(start > 0 && { 'content-range': `bytes ${start}-${bytes.length - 1}/${bytes.length}` }),
    });
    if (request.method === 'HEAD') response.end();
    else response.end(bytes.subarray(start));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }
}
