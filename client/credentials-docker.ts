/** Credentials as `docker login` leaves them: in config.json, or with a helper that it names (docker's docs, "docker login"). */
import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { failedPrecondition, messageOf } from '../ttrpc/errors.ts';
import type { CredentialProvider, Credentials } from './credentials.ts';

interface Entry {
  /** Base64 of `name:password`. */
  readonly auth?: string;
  readonly username?: string;
  readonly password?: string;
  readonly identitytoken?: string;
  readonly registrytoken?: string;
}

interface Config {
  readonly auths?: { readonly [server: string]: Entry };
  readonly credHelpers?: { readonly [server: string]: string };
  readonly credsStore?: string;
}

/** Docker's own registry answers under one name, and is logged in to under another. */
const DOCKER_HOSTS = new Set(['registry-1.docker.io', 'docker.io', 'index.docker.io']);
const DOCKER_SERVER = 'https://index.docker.io/v1/';

/** Milliseconds: a helper may ask its user to unlock a key ring. */
const HELPER_PATIENCE = 120_000;
const MAX_ANSWER = 1 << 20;

/** What a helper answers when it knows nothing of the server (docker-credential-helpers). */
const NOTHING = 'credentials not found in native keychain';

/**
 * Looks where Docker's clients look.
 *
 * @param directory of `config.json`. Default: `$DOCKER_CONFIG`, or `.docker` at home
 * @throws RpcError FailedPrecondition, from the provider, for a configuration or a helper that is broken
 */
export function dockerCredentials(
  directory = process.env['DOCKER_CONFIG'] || join(homedir(), '.docker'),
): CredentialProvider {
  const path = join(directory, 'config.json');
  return async ({ host }) => {
    const config = await readConfig(path);
    if (config === undefined) return undefined;
    const { auths = {}, credHelpers = {}, credsStore } = config;
    const [server, helper] = entryFor(credHelpers, host) ?? [serverOf(host), credsStore];
    if (helper !== undefined && helper !== '') {
      const found = await askHelper(helper, server);
      if (found !== undefined) return found;
    }
    const entry = entryFor(auths, host);
    return entry && credentialsFrom(entry[1], path);
  };
}

async function readConfig(path: string): Promise<Config | undefined> {
  let json: string;
  try {
    json = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw failedPrecondition(`${path}: ${messageOf(error)}`, error);
  }
  try {
    const config: unknown = JSON.parse(json);
    if (typeof config === 'object' && config !== null) return config;
  } catch {
    // JSON's own message would quote what is around the mistake, which may be a password.
  }
  throw failedPrecondition(`${path} is no JSON object`);
}

function serverOf(host: string): string {
  return DOCKER_HOSTS.has(host) ? DOCKER_SERVER : host;
}

/** Servers are written as hosts, or as addresses with a scheme and perhaps a path. */
function entryFor<T>(
  entries: { readonly [server: string]: T },
  host: string,
): readonly [server: string, entry: T] | undefined {
  const wanted = serverOf(host);
  if (Object.hasOwn(entries, wanted)) return [wanted, entries[wanted]!];
  const hostOf = (server: string): string => server.replace(/^https?:\/\//, '').replace(/\/.*$/, '');
  const found = Object.entries(entries).find(([server]) => serverOf(hostOf(server)) === wanted);
  return found;
}

function credentialsFrom(entry: Entry, path: string): Credentials | undefined {
  const { auth, identitytoken, registrytoken } = entry;
  if (identitytoken) return { kind: 'refresh', secret: identitytoken };
  if (registrytoken) return { kind: 'header', secret: `Bearer ${registrytoken}` };
  if (auth) {
    // Some writers pad with zeros.
    const pair = Buffer.from(auth, 'base64').toString().replace(/\0+$/, '');
    const colon = pair.indexOf(':');
    if (colon < 1) throw failedPrecondition(`${path} holds an "auth" that is not base64 of name:password`);
    return { kind: 'password', username: pair.slice(0, colon), secret: pair.slice(colon + 1) };
  }
  const { username = '', password = '' } = entry;
  return username === '' ? undefined : { kind: 'password', username, secret: password };
}

/** Runs `docker-credential-NAME get`; the server goes in by stdin, the credentials come out by stdout. */
async function askHelper(name: string, server: string): Promise<Credentials | undefined> {
  const program = `docker-credential-${name}`;
  if (!/^[\w.-]+$/.test(name))
    throw failedPrecondition(`${JSON.stringify(name)} is no name of a credential helper`);
  const { status, output } = await run(program, server);
  if (status !== 0) {
    if (output.trim() === NOTHING) return undefined;
    throw failedPrecondition(`${program} has failed (${status}): ${printable(output)}`);
  }
  let answer: { readonly Username?: unknown; readonly Secret?: unknown } | null;
  try {
    answer = JSON.parse(output) as typeof answer;
  } catch {
    throw failedPrecondition(`${program} has answered with something else than JSON`);
  }
  const { Username: username, Secret: secret } = answer ?? {};
  if (typeof username !== 'string' || typeof secret !== 'string')
    throw failedPrecondition(`${program} has answered without a name or a secret`);
  if (secret === '') return undefined;
  return username === '<token>' ? { kind: 'refresh', secret } : { kind: 'password', username, secret };
}

async function run(program: string, input: string): Promise<{ status: number | string; output: string }> {
  const child = spawn(program, ['get'], {
    stdio: ['pipe', 'pipe', 'inherit'],
    timeout: HELPER_PATIENCE,
    killSignal: 'SIGKILL',
  });
  const { promise, resolve, reject } = Promise.withResolvers<number | string>();
  child.once('error', (error) => reject(failedPrecondition(`${program}: ${error.message}`, error)));
  child.once('close', (code, signal) => resolve(code ?? signal ?? 'unknown'));
  child.stdin.on('error', () => {});
  child.stdin.end(input);
  const [output, status] = await Promise.all([text(limited(child.stdout)), promise]);
  return { status, output };
}

async function* limited(pieces: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let length = 0;
  for await (const piece of pieces) {
    length += piece.length;
    if (length > MAX_ANSWER) return;
    yield piece;
  }
}

function printable(text: string): string {
  return text
    .trim()
    .replaceAll(/[^\x20-\x7e]+/g, ' ')
    .slice(0, 200);
}
