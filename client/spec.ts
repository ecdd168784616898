import { hostname } from 'node:os';
import { isAbsolute } from 'node:path';
import { invalidArgument } from '../ttrpc/errors.ts';
import { currentCapabilities, DEFAULT_CAPABILITIES } from '../oci/capability.ts';
import { ALLOW_ALL, allow, DEFAULT_DEVICE_RULES, DENY_ALL, devicesAt, hostDevices } from '../oci/device.ts';
import type { RunConfig } from '../oci/image-config.ts';
import type {
  IdMapping,
  LinuxNamespace,
  NamespaceType,
  Process,
  Rlimit,
  Spec,
  SpecMount,
  User,
} from '../oci/spec.ts';
import type { RootDirectory } from '../oci/root-directory.ts';
import { DEFAULT_MOUNTS, MASKED_PATHS, OCI_VERSION, READONLY_PATHS, specMount } from '../oci/default-spec.ts';
import { DEFAULT_PATH, withEnvironment } from '../oci/environment.ts';
import { defaultSeccompProfile } from '../oci/seccomp.ts';
import { imageUser, lookUpUser } from '../oci/user.ts';

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
  /** A seccomp profile as the OCI specification has it; `default`: containerd's. Without one, no call is filtered. */
  readonly seccomp?: object | 'default';
  readonly apparmorProfile?: string;
  readonly rdtClass?: string;
}

/** The same for an image, whose own configuration is the default. */
export interface ImageSpecOptions extends Omit<SpecOptions, 'rootfs'> {
  /** In place of the image's entry point and command, both. */
  readonly args?: readonly string[];
  /** In place of the image's command, as arguments of its entry point. */
  readonly command?: readonly string[];
}

/** Where an image says how it is run. */
export interface ImageBasis {
  readonly config: RunConfig;
  /** Its files, among them those that users are looked up in. */
  readonly root: RootDirectory;
}

/** Where runtimes find the root filesystem that the daemon mounts for a task, beside the specification. */
const BUNDLE_ROOTFS = 'rootfs';

const NEW_NAMESPACES: readonly NamespaceType[] = ['pid', 'ipc', 'uts', 'mount', 'network'];

const HOST_FILES = ['/etc/hosts', '/etc/resolv.conf'].map((path) =>
  specMount(path, 'bind', path, 'rbind,ro'),
);

/**
 * The OCI specification of a container, with containerd's defaults (`ctr run` of 1.6 makes the same).
 *
 * @throws RpcError InvalidArgument or NotFound for what the host or the root filesystem does not have
 */
export function buildSpec(namespace: string, id: string, options: SpecOptions): Spec {
  const { rootfs, user } = options;
  if (!isAbsolute(rootfs)) throw invalidArgument(`the root filesystem's path must be absolute: ${rootfs}`);
  return specOf(namespace, id, options, {
    ...options,
    env: withEnvironment([DEFAULT_PATH], options.env ?? []),
    user: user === undefined ? { uid: 0, gid: 0 } : lookUpUser(user, rootfs),
  });
}

/**
 * The OCI specification of a container that has an image's files for its root: the image's configuration, and what is asked for
 * over it, as `ctr run` of 1.6 does it.
 *
 * @throws RpcError as `buildSpec`, and InvalidArgument when neither the image nor the caller names a command
 */
export function buildImageSpec(
  namespace: string,
  id: string,
  options: ImageSpecOptions,
  { config, root }: ImageBasis,
): Spec {
  const { user, cwd, env = [] } = options;
  const args = options.args ?? [...config.entrypoint, ...(options.command ?? config.cmd)];
  if (args.length === 0) throw invalidArgument('the image names no command: give one');
  return specOf(
    namespace,
    id,
    { ...options, rootfs: BUNDLE_ROOTFS },
    {
      args,
      cwd: cwd ?? (config.workingDir || '/'),
      env: withEnvironment(withEnvironment([DEFAULT_PATH], config.env), env),
      user: user === undefined ? imageUser(config.user, root) : lookUpUser(user, root),
    },
  );
}

/** What a process is, once it is known what of it was asked for and what is the image's. */
interface Program {
  readonly args?: readonly string[];
  readonly env: readonly string[];
  readonly cwd?: string;
  readonly user: User;
}

function specOf(namespace: string, id: string, options: SpecOptions, program: Program): Spec {
  const { rootfs, privileged = false, seccomp } = options;
  const devices = [...(privileged ? hostDevices() : []), ...(options.devices ?? []).flatMap(devicesAt)];
  const added = (options.devices ?? []).flatMap(devicesAt).map(allow);
  const rules = privileged ? [ALLOW_ALL] : [DENY_ALL, ...DEFAULT_DEVICE_RULES];
  const process = processOf(options, program);
  const bounding = process.capabilities?.bounding ?? [];
  return prune({
    ociVersion: OCI_VERSION,
    root: { path: rootfs, readonly: options.readonly },
    hostname: options.hostname,
    process,
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
      seccomp: seccomp === 'default' ? defaultSeccompProfile(bounding) : seccomp,
      intelRdt: options.rdtClass === undefined ? undefined : { closID: options.rdtClass },
    },
  });
}

function mountsOf({ mounts = [], hostNetwork = false, privileged = false }: SpecOptions): SpecMount[] {
  const all = [...DEFAULT_MOUNTS, ...mounts, ...(hostNetwork ? HOST_FILES : [])];
  if (!privileged) return all;
  const writable = (option: string) => (option === 'ro' ? 'rw' : option);
  return all.map((each) =>
    each.type === 'sysfs' || each.type === 'cgroup'
      ? { ...each, options: each.options?.map(writable) }
      : each,
  );
}

function processOf(options: SpecOptions, { args, env, cwd = '/', user }: Program): Process {
  const { privileged = false, terminal = false, hostNetwork = false } = options;
  const base = privileged ? currentCapabilities() : DEFAULT_CAPABILITIES;
  const dropped = new Set(options.dropCapabilities);
  const capabilities = [...new Set([...base, ...(options.addCapabilities ?? [])])].filter(
    (capability) => !dropped.has(capability),
  );
  const hasTerm = env.some((variable) => variable.startsWith('TERM='));
  const more = [
    ...(terminal && !hasTerm ? ['TERM=xterm'] : []),
    ...(hostNetwork ? [`HOSTNAME=${hostname()}`] : []),
  ];
  return {
    terminal: terminal || undefined,
    user,
    args: args === undefined ? undefined : [...args],
    env: withEnvironment(env, more),
    cwd,
    capabilities: { bounding: capabilities, effective: [...capabilities], permitted: [...capabilities] },
    rlimits: [...(options.rlimits ?? [{ type: 'RLIMIT_NOFILE', hard: 1024, soft: 1024 }])],
    noNewPrivileges: options.noNewPrivileges ?? true,
    apparmorProfile: options.apparmorProfile,
  };
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
