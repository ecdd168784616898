/** The small files of a pod that its containers have mounted, and the memory that they share. */
import { chownSync, copyFileSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { constants, mount, unmount } from '../../native/native.ts';
import { type DNSConfig, NamespaceMode, type PodSandboxConfig } from '../../proto/gen/runtime/v1/api.ts';
import { internal, invalidArgument, messageOf } from '../../ttrpc/errors.ts';
import { namespacesOf } from './pod.ts';
import { type Mappings, mappingsOf } from './user-namespace.ts';

const { MNT_DETACH, MS_NODEV, MS_NOEXEC, MS_NOSUID, UMOUNT_NOFOLLOW } = constants;

/** Of the shared memory of a pod, as containerd and Docker have it. */
const SHM_BYTES = 64 << 20;
/** More search domains than resolvers have ever taken are a mistake. */
const MAX_SEARCHES = 32;

export interface PodFiles {
  readonly hostname: string;
  readonly hosts: string;
  readonly resolvConf: string;
  /** What is mounted at /dev/shm in containers that share the pod's IPC; the node's when the pod does. */
  readonly shm: string;
}

/** Where they are. */
export function podFiles(directory: string, config: PodSandboxConfig): PodFiles {
  const isNode = namespacesOf(config).ipc === NamespaceMode.NODE;
  return {
    hostname: join(directory, 'hostname'),
    hosts: join(directory, 'hosts'),
    resolvConf: join(directory, 'resolv.conf'),
    shm: isNode ? '/dev/shm' : join(directory, 'shm'),
  };
}

/** The name that the pod's processes know their host by. */
export function hostnameOf(config: PodSandboxConfig): string {
  return config.hostname === '' ? hostname() : config.hostname;
}

/** @throws RpcError Internal; InvalidArgument for more domains than there can be */
export function makePodFiles(directory: string, config: PodSandboxConfig): void {
  const files = podFiles(directory, config);
  const resolver = config.dnsConfig && resolverOf(config.dnsConfig);
  try {
    mkdirSync(directory, { recursive: true, mode: 0o755 });
    writeFileSync(files.hostname, `${hostnameOf(config)}\n`, { mode: 0o644 });
    copied('/etc/hosts', files.hosts);
    if (resolver === undefined || resolver === '') copied('/etc/resolv.conf', files.resolvConf);
    else writeFileSync(files.resolvConf, resolver, { mode: 0o644 });
    own(files, mappingsOf(config));
    if (files.shm === '/dev/shm') return;
    mkdirSync(files.shm);
    mount('shm', files.shm, 'tmpfs', MS_NOEXEC | MS_NOSUID | MS_NODEV, `mode=1777,size=${SHM_BYTES}`);
  } catch (error) {
    throw internal(`cannot make the files of the pod in ${directory}: ${messageOf(error)}`, error);
  }
}

/** What is not there is fine. */
export function removePodFiles(directory: string): void {
  unmountShm(directory);
  rmSync(directory, { recursive: true, force: true });
}

/** Gives the memory back; the files stay. What is not there is fine. */
export function unmountShm(directory: string): void {
  try {
    unmount(join(directory, 'shm'), MNT_DETACH | UMOUNT_NOFOLLOW);
  } catch (error) {
    if (!['EINVAL', 'ENOENT'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}

/** resolv.conf(5) @throws RpcError InvalidArgument */
export function resolverOf({ servers, searches, options }: DNSConfig): string {
  if (searches.length > MAX_SEARCHES)
    throw invalidArgument(`dns_config has more than ${MAX_SEARCHES} search domains: invalid argument`);
  for (const word of [...servers, ...searches, ...options])
    if (/\s/.test(word) || word === '')
      throw invalidArgument(`dns_config: ${JSON.stringify(word)} is no word: invalid argument`);
  return [
    ...(searches.length > 0 ? [`search ${searches.join(' ')}`] : []),
    ...servers.map((server) => `nameserver ${server}`),
    ...(options.length > 0 ? [`options ${options.join(' ')}`] : []),
  ]
    .map((line) => `${line}\n`)
    .join('');
}

/** Whoever is root in the pod writes to them. */
function own({ hostname, hosts, resolvConf }: PodFiles, mappings: Mappings | undefined): void {
  const [user, group] = [mappings?.uids[0], mappings?.gids[0]];
  if (user === undefined || group === undefined) return;
  for (const path of [hostname, hosts, resolvConf]) chownSync(path, user.hostID, group.hostID);
}

function copied(from: string, to: string): void {
  if (existsSync(from)) copyFileSync(from, to);
  else writeFileSync(to, '', { mode: 0o644 });
}
