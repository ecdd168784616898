/** Debian's docker-registry with what its clients need to know: its certificate's authority, a user, and their flags. */
import { execFileSync } from 'node:child_process';
import { lookup } from 'node:dns/promises';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { DebianRegistry } from '../../daemon/distribution/testing/registries.ts';

export interface RegistryOptions {
  /** Serve HTTPS with a certificate signed by an authority of its own. */
  readonly tls?: boolean;
  /** Let in only `user`. */
  readonly password?: boolean;
}

/** `name:password`, as --user takes it. */
const credentials = 'skipper:open:sesame';

/** A registry on this host, empty at first. It ends, with everything it stored, when it is disposed. */
export class LocalRegistry implements AsyncDisposable {
  /**
   * `name:port`, which image names begin with. With TLS it is the host's own name: clients take `localhost` and 127.0.0.0/8 for
   * plain HTTP, or do not check certificates there.
   */
  readonly host: string;
  /** The file with the certificate of its authority; undefined without TLS. */
  readonly ca: string | undefined;
  /** `name:password`; undefined without a password. */
  readonly user: string | undefined;
  /** A folder with a `hosts.toml` for it, as `--hosts-dir` takes it. */
  readonly hostsDir: string;
  readonly #registry: DebianRegistry;
  readonly #directory: string;

  private constructor(registry: DebianRegistry, directory: string, host: string, options: RegistryOptions) {
    this.#registry = registry;
    this.#directory = directory;
    this.host = host;
    this.ca = options.tls === true ? join(directory, 'ca.pem') : undefined;
    this.user = options.password === true ? credentials : undefined;
    this.hostsDir = join(directory, 'hosts');
    mkdirSync(join(this.hostsDir, host), { recursive: true });
    const scheme = this.ca === undefined ? 'http' : 'https';
    const ca = this.ca === undefined ? '' : `ca = "${this.ca}"\n`;
    const server = `${scheme}://${host}`;
    writeFileSync(
      join(this.hostsDir, host, 'hosts.toml'),
      `server = "${server}"\n[host."${server}"]\ncapabilities = ["pull", "resolve", "push"]\n${ca}`,
    );
  }

  static async start(options: RegistryOptions = {}): Promise<LocalRegistry> {
    const directory = mkdtempSync('/tmp/mreg-');
    try {
      const files: Record<string, string> = {};
      let http = 'http: {addr: "ADDRESS"}';
      let auth = '';
      const name = options.tls === true ? hostname() : '127.0.0.1';
      if (options.tls === true) {
        Object.assign(files, certificates(directory, name));
        http = 'http: {addr: "ADDRESS", tls: {certificate: DIRECTORY/server.pem, key: DIRECTORY/server.key}}';
      }
      if (options.password === true) {
        const [user, ...password] = credentials.split(':');
        const args = ['-Bbn', user as string, password.join(':')];
        files['htpasswd'] = execFileSync('htpasswd', args, { encoding: 'utf8' });
        auth = '\nauth: {htpasswd: {realm: moor, path: DIRECTORY/htpasswd}}';
      }
      const { address } = await lookup(name, { family: 4 });
      const registry = await DebianRegistry.start(http + auth, files, address);
      const host = registry.host.replace(address, name);
      return new LocalRegistry(registry, directory, host, options);
    } catch (error) {
      rmSync(directory, { recursive: true });
      throw error;
    }
  }

  /** The full name of an image here. */
  image(repository: string, tag = 'latest'): string {
    return `${this.host}/${repository}:${tag}`;
  }

  /** The flags with which ctr's pull, push and fetch reach it: `--plain-http`, `--tlscacert FILE`, `--user NAME:PASSWORD`. */
  get ctrFlags(): string[] {
    const scheme = this.ca === undefined ? ['--plain-http'] : ['--tlscacert', this.ca];
    return this.user === undefined ? scheme : [...scheme, '--user', this.user];
  }

  /** The flags with which `skopeo copy` reaches it as `src` or `dest`; the other commands' have no prefix. */
  skopeoFlags(side?: 'src' | 'dest'): string[] {
    const prefix = side === undefined ? '--' : `--${side}-`;
    const certificates =
      this.ca === undefined ? `${prefix}tls-verify=false` : `${prefix}cert-dir=${this.#directory}/certs`;
    return this.user === undefined ? [certificates] : [certificates, `${prefix}creds=${this.user}`];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#registry[Symbol.asyncDispose]();
    rmSync(this.#directory, { recursive: true });
  }
}

/** Makes an authority and a certificate for the name, and returns the server's part by file name. */
function certificates(directory: string, name: string): Record<string, string> {
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: directory, stdio: 'ignore' });
  const key = (file: string) => [
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:prime256v1',
    '-nodes',
    '-keyout',
    file,
  ];
  openssl('req', '-x509', ...key('ca.key'), '-days', '2', '-subj', '/CN=harbour', '-out', 'ca.pem');
  openssl('req', '-new', ...key('server.key'), '-subj', `/CN=${name}`, '-out', 'server.csr');
  writeFileSync(join(directory, 'names'), `subjectAltName=DNS:${name},DNS:localhost,IP:127.0.0.1\n`);
  const signing = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2', '-extfile', 'names'];
  openssl('x509', '-req', '-in', 'server.csr', ...signing, '-out', 'server.pem');
  mkdirSync(join(directory, 'certs'));
  const read = (file: string) => readFileSync(join(directory, file), 'utf8');
  writeFileSync(join(directory, 'certs/ca.crt'), read('ca.pem'));
  return { 'server.pem': read('server.pem'), 'server.key': read('server.key') };
}
