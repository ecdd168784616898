/**
 * Where a registry is to be found: itself and its mirrors, as folders with `hosts.toml` say (containerd's docs/hosts.md), or as its
 * name says.
 */
import { readFile, readdir } from 'node:fs/promises';
import { isAbsolute, join } from 'node:path';
import { parse } from 'smol-toml';
import { invalidArgument, messageOf } from '../../ttrpc/errors.ts';
import type { Headers, Tls } from './transport.ts';

export type Capability = 'pull' | 'resolve' | 'push';

export interface Host {
  /** With the API's prefix and without a slash at the end: `https://mirror.example/v2`. */
  readonly base: string;
  readonly capabilities: ReadonlySet<Capability>;
  readonly headers: Headers;
  readonly tls: Tls;
  /** The registry's name when this host is only a mirror of it. */
  readonly mirrorOf?: string;
}

export interface HostOptions {
  /** The folder with a folder for each registry. */
  readonly directory?: string | undefined;
  /** `http` or `https` for a registry without configuration. */
  readonly scheme?: string | undefined;
  /** For hosts whose configuration says nothing of TLS. */
  readonly tls?: Tls | undefined;
}

const ALL: readonly Capability[] = ['pull', 'resolve', 'push'];
const NO_TLS: Tls = { ca: [], client: [], skipVerify: false };

/** The hosts to try, in order; the registry itself is last. @throws RpcError InvalidArgument for a broken configuration */
export async function hostsOf(registry: string, options: HostOptions): Promise<Host[]> {
  const { directory, scheme, tls = NO_TLS } = options;
  const plain = scheme || (isLoopback(registry) && tls === NO_TLS ? 'http' : 'https');
  const server = `${plain}://${serverOf(registry)}`;
  const itself = (tls: Tls): Host => ({
    base: `${server}/v2`,
    capabilities: new Set(ALL),
    headers: {},
    tls,
  });
  if (!directory) return [itself(tls)];
  for (const folder of foldersFor(directory, registry)) {
    const path = join(folder, 'hosts.toml');
    const text = await readFile(path, 'utf8').catch(missingAs(undefined));
    if (text !== undefined) return read(text, { path, folder, registry, server, tls });
    const names = await readdir(folder).catch(missingAs(undefined));
    if (names !== undefined) return [itself(orDefault(await dockerTls(folder, names), tls))];
  }
  return [itself(tls)];
}

function orDefault(own: Tls, tls: Tls): Tls {
  return own.ca.length === 0 && own.client.length === 0 && !own.skipVerify ? tls : own;
}

/** Docker's registry answers under another name than images carry. */
function serverOf(registry: string): string {
  return registry === 'docker.io' ? 'registry-1.docker.io' : registry;
}

export function isLoopback(registry: string): boolean {
  const name = registry.replace(/:\d+$/, '');
  return name === 'localhost' || name === '[::1]' || /^127(?:\.\d{1,3}){3}$/.test(name);
}

function foldersFor(directory: string, registry: string): string[] {
  const match = /^(.*):(\d+)$/.exec(registry);
  const names = match === null ? [registry] : [`${match[1]}_${match[2]}_`, registry, match[1]!];
  return [...names, '_default'].map((name) => join(directory, name));
}

function missingAs<T>(value: T): (error: NodeJS.ErrnoException) => T {
  return (error) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return value;
    throw error;
  };
}

/** `*.crt` are authorities; a `*.cert` and a `*.key` of one name belong to the client. */
async function dockerTls(folder: string, names: readonly string[]): Promise<Tls> {
  const read = (name: string): Promise<Buffer> => readFile(join(folder, name));
  const ca = await Promise.all(names.filter((name) => name.endsWith('.crt')).map(read));
  const pairs = names.filter((name) => name.endsWith('.cert')).map((name) => name.slice(0, -'.cert'.length));
  const client = await Promise.all(
    pairs.map(async (name) => ({ cert: await read(`${name}.cert`), key: await read(`${name}.key`) })),
  );
  return { ca, client, skipVerify: false };
}

interface Place {
  readonly path: string;
  readonly folder: string;
  readonly registry: string;
  readonly server: string;
  readonly tls: Tls;
}

interface Section {
  readonly [key: string]: unknown;
}

async function read(text: string, place: Place): Promise<Host[]> {
  try {
    const file = parse(text) as Section;
    const mirrors = Object.entries((file['host'] ?? {}) as { readonly [url: string]: Section });
    const hosts: Host[] = [];
    for (const [url, section] of mirrors) {
      hosts.push({ ...(await hostFrom(url, section, place)), mirrorOf: place.registry });
    }
    const server = file['server'];
    const address = typeof server === 'string' && server !== '' ? server : place.server;
    // A mirror that is the server itself takes its place.
    if (!hosts.some(({ base }) => base === baseOf(address, false)))
      hosts.push(await hostFrom(address, file, place));
    return hosts;
  } catch (error) {
    throw invalidArgument(`${place.path}: ${messageOf(error)}: invalid argument`, error);
  }
}

async function hostFrom(address: string, section: Section, { folder, tls }: Place): Promise<Host> {
  const {
    capabilities = ALL,
    ca,
    client,
    skip_verify: skipVerify,
    header = {},
    override_path: bare,
  } = section;
  return {
    base: baseOf(address, bare === true),
    capabilities: new Set(strings(capabilities) as Capability[]),
    headers: Object.fromEntries(
      Object.entries(header as Section).map(([name, value]) => [name, strings(value).join(', ')]),
    ),
    tls: orDefault(
      {
        ca: await Promise.all(strings(ca ?? []).map((name) => load(folder, name))),
        client: await Promise.all(clientPairs(client).map(([cert, key]) => loadPair(folder, cert, key))),
        skipVerify: skipVerify === true,
      },
      tls,
    ),
  };
}

function baseOf(address: string, bare: boolean): string {
  const url = new URL(address.includes('://') ? address : `https://${address}`);
  const path = url.pathname.replace(/\/+$/, '');
  return `${url.origin}${bare || path.endsWith('/v2') ? path : `${path}/v2`}`;
}

function strings(value: unknown): string[] {
  const list = Array.isArray(value) ? value : [value];
  if (!list.every((item) => typeof item === 'string')) throw new Error('a text or a list of texts is needed');
  return list;
}

/** A file with both, a list of such, or a list of pairs. */
function clientPairs(value: unknown): [cert: string, key: string][] {
  if (value === undefined) return [];
  const list: unknown[] = Array.isArray(value) ? value : [value];
  return list.map((item) => {
    const [cert, key] = strings(item);
    return [cert!, key || cert!];
  });
}

function load(folder: string, name: string): Promise<Buffer> {
  return readFile(isAbsolute(name) ? name : join(folder, name));
}

async function loadPair(folder: string, cert: string, key: string): Promise<{ cert: Buffer; key: Buffer }> {
  return { cert: await load(folder, cert), key: await load(folder, key) };
}
