import { hostname } from 'node:os';
import { isAbsolute } from 'node:path';
import { invalidArgument } from '../ttrpc/errors.ts';
import { currentCapabilities, DEFAULT_CAPABILITIES } from './capability.ts';
import { ALLOW_ALL, allow, DEFAULT_DEVICE_RULES, DENY_ALL, devicesAt, hostDevices } from './device.ts';
import type { IdMapping, LinuxNamespace, NamespaceType, Process, Rlimit, Spec, SpecMount } from './oci.ts';
import { lookUpUser } from './user.ts';

/** What is to run, in the terms of an operator. All but the root filesystem has containerd's default. */
export interface SpecOptions {
  /** Absolute path of the root filesystem's directory. */
  readonly rootfs: string;
  readonly args?: readonly string[];
  /** `NAME=value`; a name alone removes the variable. Unlike ctr, there is a PATH to begin with. */
  readonly env?: readonly string[];
  readonly cwd?: string;
  /** As `lookUpUser` takes it. */
  readonly user?: string;
  readonly hostname?: string;
  readonly terminal?: boolean;
  readonly readonly?: boolean;
  /** Appended to the default ones. */
  readonly mounts?: readonly SpecMount[];
  readonly annotations?: { readonly [key: string]: string };
  /** Default: `/<namespace>/<id>`. Empty: the runtime chooses. */
  readonly cgroupsPath?: string;
  /** Bytes. */
  readonly memoryLimit?: number;
  readonly cpuShares?: number;
  /** Microseconds of processor time in every `period` microseconds. */
  readonly cpu?: { readonly quota: number; readonly period?: number };
  readonly rlimits?: readonly Rlimit[];
  readonly addCapabilities?: readonly string[];
  readonly dropCapabilities?: readonly string[];
  /** Default: true. */
  readonly noNewPrivileges?: boolean;
  /** All capabilities and devices this process has, nothing masked. */
  readonly privileged?: boolean;
  /** Devices, or directories of them, to make available. */
  readonly devices?: readonly string[];
  /** Use the host's network, its hosts file and its resolver's. */
  readonly hostNetwork?: boolean;
  /** Namespaces to join. */
  readonly namespaces?: readonly LinuxNamespace[];
  readonly idMappings?: { readonly uid: readonly IdMapping[]; readonly gid: readonly IdMapping[] };
  readonly rootfsPropagation?: string;
  /** A seccomp profile as the OCI specification has it. */
  readonly seccomp?: object;
  readonly apparmorProfile?: string;
  readonly rdtClass?: string;
}

/** Without one, runc finds only commands that are given by their path. */
const DEFAULT_PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

const OCI_VERSION = '1.0.2';

const NEW_NAMESPACES: readonly NamespaceType[] = ['pid', 'ipc', 'uts', 'mount', 'network'];

const mount = (destination: string, type: string, source: string, options: string): SpecMount => ({
  destination,
  type,
  source,
  options: options.split(','),
});

const DEFAULT_MOUNTS: readonly SpecMount[] = [
  mount('/proc', 'proc', 'proc', 'nosuid,noexec,nodev'),
  mount('/dev', 'tmpfs', 'tmpfs', 'nosuid,strictatime,mode=755,size=65536k'),
  mount('/dev/pts', 'devpts', 'devpts', 'nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5'),
  mount('/dev/shm', 'tmpfs', 'shm', 'nosuid,noexec,nodev,mode=1777,size=65536k'),
  mount('/dev/mqueue', 'mqueue', 'mqueue', 'nosuid,noexec,nodev'),
  mount('/sys', 'sysfs', 'sysfs', 'nosuid,noexec,nodev,ro'),
  mount('/run', 'tmpfs', 'tmpfs', 'nosuid,strictatime,mode=755,size=65536k'),
];

const MASKED_PATHS = [
  '/proc/acpi',
  '/proc/asound',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/proc/sched_debug',
  '/sys/firmware',
  '/proc/scsi',
];

const READONLY_PATHS = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'];

const HOST_FILES = ['/etc/hosts', '/etc/resolv.conf'].map((path) => mount(path, 'bind', path, 'rbind,ro'));

/**
 * The OCI specification of a container, with containerd's defaults (`ctr run` of 1.6 makes the same).
 *
 * @throws RpcError InvalidArgument or NotFound for what the host or the root filesystem does not have
 */
export function buildSpec(namespace: string, id: string, options: SpecOptions): Spec {
  const { rootfs, privileged = false, hostNetwork = false } = options;
  if (!isAbsolute(rootfs)) throw invalidArgument(`the root filesystem's path must be absolute: ${rootfs}`);
  const devices = [...(privileged ? hostDevices() : []), ...(options.devices ?? []).flatMap(devicesAt)];
  const added = (options.devices ?? []).flatMap(devicesAt).map(allow);
  const rules = privileged ? [ALLOW_ALL] : [DENY_ALL, ...DEFAULT_DEVICE_RULES];
  return prune({
    ociVersion: OCI_VERSION,
    root: { path: rootfs, readonly: options.readonly },
    hostname: options.hostname,
    process: processOf(options),
    mounts: mountsOf(options),
    annotations: options.annotations === undefined ? undefined : { ...options.annotations },
    linux: {
      cgroupsPath: options.cgroupsPath ?? `/${namespace}/${id}`,
      namespaces: namespacesOf(options),
      uidMappings: options.idMappings && [...options.idMappings.uid],
      gidMappings: options.idMappings && [...options.idMappings.gid],
      devices: devices.length === 0 ? undefined : devices,
      resources: {
        devices: [...rules, ...added],
        memory: options.memoryLimit === undefined ? undefined : { limit: options.memoryLimit },
        cpu:
          options.cpu === undefined && options.cpuShares === undefined
            ? undefined
            : { shares: options.cpuShares, ...options.cpu },
      },
      maskedPaths: privileged ? undefined : [...MASKED_PATHS],
      readonlyPaths: privileged ? undefined : [...READONLY_PATHS],
      rootfsPropagation: options.rootfsPropagation,
      seccomp: privileged ? undefined : options.seccomp,
      intelRdt: options.rdtClass === undefined ? undefined : { closID: options.rdtClass },
    },
  });

  function mountsOf({ mounts = [] }: SpecOptions): SpecMount[] {
    const all = [...DEFAULT_MOUNTS, ...mounts, ...(hostNetwork ? HOST_FILES : [])];
    if (!privileged) return all;
    const writable = (option: string) => (option === 'ro' ? 'rw' : option);
    return all.map((each) =>
      each.type === 'sysfs' || each.type === 'cgroup'
        ? { ...each, options: each.options?.map(writable) }
        : each,
    );
  }
}

function processOf(options: SpecOptions): Process {
  const { privileged = false, terminal = false, hostNetwork = false } = options;
  const base = privileged ? currentCapabilities() : DEFAULT_CAPABILITIES;
  const dropped = new Set(options.dropCapabilities);
  const capabilities = [...new Set([...base, ...(options.addCapabilities ?? [])])].filter(
    (capability) => !dropped.has(capability),
  );
  const env = withEnvironment([DEFAULT_PATH], options.env ?? []);
  if (terminal) env.push('TERM=xterm');
  return {
    terminal: terminal || undefined,
    user: options.user === undefined ? { uid: 0, gid: 0 } : lookUpUser(options.user, options.rootfs),
    args: options.args === undefined ? undefined : [...options.args],
    env: hostNetwork ? withEnvironment(env, [`HOSTNAME=${hostname()}`]) : env,
    cwd: options.cwd ?? '/',
    capabilities: { bounding: capabilities, effective: [...capabilities], permitted: [...capabilities] },
    rlimits: [...(options.rlimits ?? [{ type: 'RLIMIT_NOFILE', hard: 1024, soft: 1024 }])],
    noNewPrivileges: options.noNewPrivileges ?? true,
    apparmorProfile: privileged ? undefined : options.apparmorProfile,
  };
}

/** The variables with others set over them; a name without a value removes its variable. */
export function withEnvironment(base: readonly string[], changes: readonly string[]): string[] {
  const variables = new Map(base.map((variable) => [nameOf(variable), variable]));
  for (const change of changes) {
    if (change === '') continue;
    if (change.includes('=')) variables.set(nameOf(change), change);
    else variables.delete(change);
  }
  return [...variables.values()];
}

function nameOf(variable: string): string {
  return variable.split('=', 1)[0]!;
}

function namespacesOf({ hostNetwork, namespaces = [], idMappings }: SpecOptions): LinuxNamespace[] {
  const all = new Map<NamespaceType, LinuxNamespace>();
  for (const type of NEW_NAMESPACES) all.set(type, { type });
  if (hostNetwork === true) all.delete('network');
  if (idMappings !== undefined) all.set('user', { type: 'user' });
  for (const namespace of namespaces) all.set(namespace.type, namespace);
  return [...all.values()];
}

/** Without fields that are undefined, as JSON has it: what is compared, shown and sent is then the same. */
function prune(spec: Spec): Spec {
  return JSON.parse(JSON.stringify(spec)) as Spec;
}
