/** How a registry is reached: ctr's flags. */
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import type { CredentialProvider, RegistryOptions } from '../client/client.ts';
import { Failure } from './failure.ts';
import type { Session } from './session.ts';

export interface RegistryFlags {
  readonly skipVerify?: boolean;
  readonly plainHttp?: boolean;
  readonly user?: string;
  readonly refresh?: string;
  readonly hostsDir?: string;
  readonly tlscacert?: string;
  readonly tlscert?: string;
  readonly tlskey?: string;
  readonly httpDump?: boolean;
  readonly httpTrace?: boolean;
  readonly local?: boolean;
}

export function addRegistryFlags(command: Command): Command {
  return command
    .option('-k, --skip-verify', 'do not check the registry’s certificate')
    .option('--plain-http', 'talk HTTP (default: only with a registry on this host)')
    .option(
      '-u, --user <name[:password]>',
      'a password that is left out is asked for (default: as docker has it)',
    )
    .option('--refresh <token>', 'an identity token for the registry’s token server')
    .option('--hosts-dir <directory>', 'a folder with a hosts.toml for each registry')
    .option('--tlscacert <file>', 'trust this authority, too')
    .option('--tlscert <file>', 'certificate to show to the registry')
    .option('--tlskey <file>', 'its key')
    .option('--http-dump', 'show every exchange with the registry with its headers')
    .option('--http-trace', 'show every exchange with the registry')
    .addOption(new Option('--local').hideHelp());
}

/** @throws Failure for flags that contradict each other, files that cannot be read, a password that is not given */
export async function registryOptions(flags: RegistryFlags, { sdk }: Session): Promise<RegistryOptions> {
  if (flags.local === true)
    throw new Failure(
      '--local: images are moved by the daemon, not by this command',
      'leave it out; the daemon is given the same credentials and certificates',
    );
  const tls = await tlsOf(flags);
  if (flags.plainHttp === true && tls !== undefined)
    throw new Failure('--plain-http has no certificates: --skip-verify and --tls… do not go with it');
  const trace = flags.httpDump === true ? 'headers' : flags.httpTrace === true ? 'requests' : undefined;
  return {
    credentials: await credentialsOf(flags, sdk.dockerCredentials()),
    ...(flags.plainHttp === true && { plainHttp: true }),
    ...(flags.hostsDir !== undefined && { hostsDirectory: resolve(flags.hostsDir) }),
    ...(tls !== undefined && { tls }),
    ...(trace !== undefined && { trace }),
  };
}

/** Whether lines come in between that bars would be torn by. */
export function isTraced({ httpDump, httpTrace }: RegistryFlags): boolean {
  return httpDump === true || httpTrace === true;
}

async function tlsOf(flags: RegistryFlags): Promise<RegistryOptions['tls']> {
  const { skipVerify = false, tlscacert, tlscert, tlskey } = flags;
  if (tlskey !== undefined && tlscert === undefined)
    throw new Failure('--tlskey is the key of a certificate: give it with --tlscert');
  if (tlscert !== undefined && tlskey === undefined)
    throw new Failure('--tlscert needs its key: give it with --tlskey');
  if (!skipVerify && tlscacert === undefined && tlscert === undefined) return undefined;
  return {
    skipVerify,
    ...(tlscacert !== undefined && { ca: await pem('--tlscacert', tlscacert) }),
    ...(tlscert !== undefined && { certificate: await pem('--tlscert', tlscert) }),
    ...(tlskey !== undefined && { key: await pem('--tlskey', tlskey) }),
  };
}

async function pem(flag: string, file: string): Promise<Buffer> {
  let bytes: Buffer;
  try {
    bytes = await readFile(file);
  } catch (error) {
    throw new Failure(`${flag}: ${(error as Error).message}`);
  }
  if (!bytes.includes('-----BEGIN ')) throw new Failure(`${flag}: ${file} is no PEM file`);
  return bytes;
}

async function credentialsOf(flags: RegistryFlags, docker: CredentialProvider): Promise<CredentialProvider> {
  const { user, refresh } = flags;
  if (user !== undefined) {
    const colon = user.indexOf(':');
    const username = colon < 0 ? user : user.slice(0, colon);
    if (username === '') throw new Failure('--user: a name is needed before the password');
    const { askPassword } = await import('./password.ts');
    const secret = colon < 0 ? await askPassword(`Password of ${username}`) : user.slice(colon + 1);
    return () => Promise.resolve({ kind: 'password', username, secret });
  }
  if (refresh !== undefined) return () => Promise.resolve({ kind: 'refresh', secret: refresh });
  return docker;
}
