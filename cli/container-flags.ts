/** The flags that describe a container, shared by `run` and `containers create`: ctr's, and the few that docker's users miss. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { Container, ContainerOptions, oci, SpecOptions } from '../client/client.ts';
import { Failure } from './failure.ts';
import { collect, parseLabels, split } from './labels.ts';
import type { Session } from './session.ts';

export interface ContainerFlags {
  readonly rootfs?: boolean;
  readonly config?: string;
  readonly cwd?: string;
  readonly env?: string[];
  readonly envFile?: string;
  readonly user?: string;
  readonly hostname?: string;
  readonly label?: string[];
  readonly annotation?: string[];
  readonly mount?: string[];
  readonly netHost?: boolean;
  readonly privileged?: boolean;
  readonly readOnly?: boolean;
  readonly runtime: string;
  readonly runcBinary?: string;
  readonly runcRoot?: string;
  readonly runcSystemdCgroup?: boolean;
  readonly tty?: boolean;
  readonly withNs?: string[];
  readonly pidFile?: string;
  readonly gpus?: string;
  readonly cni?: boolean;
  readonly allowNewPrivs?: boolean;
  readonly memoryLimit?: number;
  readonly cpus?: number;
  readonly cpuShares?: number;
  readonly cpuQuota?: number;
  readonly cpuPeriod?: number;
  readonly cgroup?: string;
  readonly device?: string[];
  readonly capAdd?: string[];
  readonly capDrop?: string[];
  readonly seccomp?: boolean;
  readonly seccompProfile?: string;
  readonly apparmorProfile?: string;
  readonly rdtClass?: string;
  readonly pivot?: boolean;
  readonly rootfsPropagation?: string;
  readonly uidmap?: oci.IdMapping;
  readonly gidmap?: oci.IdMapping;
}

const DEFAULT_RUNTIME = 'io.containerd.runc.v2';

export function addContainerFlags(command: Command): Command {
  return command
    .option('--rootfs', 'the first argument is a directory with the root filesystem')
    .option('-c, --config <file>', 'the OCI specification to use as it is; then only the id is given')
    .option('--cwd <directory>', 'working directory of the process')
    .option('--env <name=value>', 'environment variable; a name alone removes it (repeatable)', collect)
    .option('--env-file <file>', 'file of environment variables, one per line')
    .option('--user <user[:group]>', 'who to run as, by number or by the root filesystem’s /etc/passwd')
    .option('--hostname <name>', 'host name in the container')
    .option('--label <key=value>', 'label of the container (repeatable)', collect)
    .option('--annotation <key=value>', 'OCI annotation (repeatable)', collect)
    .option('--mount <spec>', 'type=bind,src=/tmp,dst=/host,options=rbind:ro (repeatable)', collect)
    .option('--net-host', 'use the network of the host')
    .option('--privileged', 'all capabilities and devices of the host, nothing masked')
    .option('--read-only', 'make the root filesystem read-only')
    .option('--runtime <name>', 'runtime by name, or its shim by absolute path', DEFAULT_RUNTIME)
    .option('--runc-binary <path>', 'runtime to use in place of runc')
    .option('--runc-root <directory>', 'where runc keeps its state')
    .option('--runc-systemd-cgroup', 'have systemd manage the cgroup; needs --cgroup')
    .option('-t, --tty', 'give the process a terminal')
    .option('--with-ns <type:path>', 'join an existing namespace (repeatable)', collect)
    .option('--pid-file <file>', 'write the process id to a file')
    .addOption(new Option('--gpus <ids>', 'give GPUs to the container').hideHelp())
    .addOption(new Option('--cni', 'set up a network with CNI').hideHelp())
    .option('--allow-new-privs', 'let the process gain privileges by executing setuid files')
    .option('--memory-limit <bytes>', 'limit of memory; k, m and g are understood', parseBytes)
    .option('--cpus <number>', 'limit of processor time, in processors', parseNumber)
    .option('--cpu-shares <number>', 'weight among those that compete for processors', parseNumber)
    .option('--cpu-quota <microseconds>', 'processor time in each period', parseNumber)
    .option('--cpu-period <microseconds>', 'length of the period', parseNumber)
    .option('--cgroup <path>', 'cgroup; empty for none')
    .option('--device <path>', 'device, or directory of devices, to make available (repeatable)', collect)
    .option('--cap-add <capability>', 'add a capability, named with CAP_ (repeatable)', collect)
    .option('--cap-drop <capability>', 'drop a capability, named with CAP_ (repeatable)', collect)
    .option('--seccomp', 'filter system calls; needs --seccomp-profile')
    .option('--seccomp-profile <file>', 'the filter, as in the OCI specification')
    .option('--apparmor-profile <name>', 'AppArmor profile that the host has loaded')
    .option('--rdt-class <name>', 'class of service for cache and memory bandwidth')
    .option('--no-pivot', 'change the root without pivot_root(2)')
    .option('--rootfs-propagation <mode>', 'propagation of mounts of the root filesystem')
    .option('--uidmap <container:host:length>', 'map user ids in a user namespace', parseIdMapping)
    .option('--gidmap <container:host:length>', 'map group ids in a user namespace', parseIdMapping);
}

/** The arguments of a command that makes a container: `[--config] ID` or `ROOTFS ID [COMMAND…]`. */
export interface ContainerArguments {
  readonly rootfs: string;
  readonly id: string;
  readonly command: readonly string[];
}

/** @throws Failure when they do not fit the flags */
export function containerArguments(words: readonly string[], flags: ContainerFlags): ContainerArguments {
  if (flags.gpus !== undefined) throw new Failure('--gpus: GPUs are not supported');
  if (flags.cni === true) {
    throw new Failure('--cni: CNI networks are not supported', 'use --net-host, or --with-ns network:PATH');
  }
  if (flags.config !== undefined) {
    const [id, ...rest] = words;
    if (id === undefined) throw new Failure('a container id must be given');
    if (rest.length > 0) throw new Failure('with --config only the container id is given');
    return { rootfs: '', id, command: [] };
  }
  const [rootfs, id, ...command] = words;
  if (rootfs === undefined) throw new Failure('a root filesystem must be given');
  if (flags.rootfs !== true) {
    throw new Failure(`running an image (${rootfs}) is not supported`, 'give a directory and --rootfs');
  }
  if (id === undefined) throw new Failure('a container id must be given after the root filesystem');
  return { rootfs, id, command };
}

/** Stores the container that flags and arguments describe. */
export async function createContainer(
  { client, call }: Session,
  args: ContainerArguments,
  flags: ContainerFlags,
): Promise<Container> {
  const labels = parseLabels(flags.label ?? []);
  const spec =
    flags.config === undefined
      ? client.spec(args.id, specOptions(args, flags, labels))
      : specFromFile(flags.config, labels);
  return await client.containers.create(args.id, { ...call, spec, labels, runtime: runtimeOf(flags) });
}

function runcOptions(flags: ContainerFlags): NonNullable<ContainerOptions['runtime']>['runc'] {
  const { runcBinary, runcRoot, runcSystemdCgroup, pivot, uidmap, gidmap } = flags;
  return {
    binaryName: runcBinary,
    root: runcRoot,
    systemdCgroup: runcSystemdCgroup,
    noPivotRoot: pivot === false,
    ioUid: uidmap?.hostID,
    ioGid: gidmap?.hostID,
  };
}

function runtimeOf(flags: ContainerFlags): ContainerOptions['runtime'] {
  const { runtime: name, runcBinary, runcSystemdCgroup, cgroup } = flags;
  const isRunc = name === DEFAULT_RUNTIME || name.startsWith('/');
  if (!isRunc && (runcBinary !== undefined || runcSystemdCgroup === true)) {
    throw new Failure(`--runc-binary and --runc-systemd-cgroup are options of ${DEFAULT_RUNTIME}`);
  }
  if (runcSystemdCgroup === true && !cgroup) {
    throw new Failure('--runc-systemd-cgroup needs --cgroup', 'such as --cgroup machine.slice:moor:NAME');
  }
  return { name, runc: isRunc ? runcOptions(flags) : undefined };
}

function specOptions(
  { rootfs, command }: ContainerArguments,
  flags: ContainerFlags,
  labels: Record<string, string>,
): SpecOptions {
  const { seccomp, seccompProfile } = flags;
  if (seccomp === true && seccompProfile === undefined) {
    throw new Failure('--seccomp: there is no default profile', 'name one with --seccomp-profile');
  }
  if (seccompProfile !== undefined && seccomp !== true) {
    throw new Failure('--seccomp-profile needs --seccomp');
  }
  const fileLines = flags.envFile === undefined ? [] : readText(flags.envFile, '--env-file').split(/\r?\n/);
  return {
    rootfs: resolve(rootfs),
    args: command.length === 0 ? undefined : command,
    env: [...fileLines, ...(flags.env ?? [])],
    cwd: flags.cwd,
    user: flags.user,
    hostname: flags.hostname,
    terminal: flags.tty,
    readonly: flags.readOnly,
    mounts: flags.mount?.map(parseMount),
    annotations: annotationsOf(flags, labels),
    cgroupsPath: flags.cgroup,
    memoryLimit: flags.memoryLimit,
    cpuShares: flags.cpuShares,
    cpu: cpuOf(flags),
    addCapabilities: flags.capAdd?.map(checkCapability),
    dropCapabilities: flags.capDrop?.map(checkCapability),
    noNewPrivileges: flags.allowNewPrivs === true ? false : undefined,
    privileged: flags.privileged,
    devices: flags.device,
    hostNetwork: flags.netHost,
    namespaces: flags.withNs?.map(parseNamespace),
    idMappings: idMappingsOf(flags),
    rootfsPropagation: flags.rootfsPropagation,
    seccomp: seccompProfile === undefined ? undefined : parseJson(seccompProfile, '--seccomp-profile'),
    apparmorProfile: flags.apparmorProfile,
    rdtClass: flags.rdtClass,
  };
}

/** ctr shows labels to the runtime as annotations, too. */
function annotationsOf(
  flags: ContainerFlags,
  labels: Record<string, string>,
): Record<string, string> | undefined {
  const annotations = (flags.annotation ?? []).map((pair) => {
    if (!pair.includes('=')) throw new Failure(`--annotation: not key=value: ${pair}`);
    return split(pair, '');
  });
  const all = { ...Object.fromEntries(annotations), ...labels };
  return Object.keys(all).length === 0 ? undefined : all;
}

/** The period of CFS when only a number of processors is given: the kernel's default. */
const DEFAULT_PERIOD = 100_000;

function cpuOf({ cpus, cpuQuota: quota, cpuPeriod: period }: ContainerFlags): SpecOptions['cpu'] {
  if (quota !== undefined || period !== undefined) {
    if (cpus !== undefined) throw new Failure('give either --cpus or --cpu-quota and --cpu-period');
    return { quota: quota ?? -1, period };
  }
  return cpus === undefined
    ? undefined
    : { quota: Math.trunc(cpus * DEFAULT_PERIOD), period: DEFAULT_PERIOD };
}

function idMappingsOf({ uidmap, gidmap }: ContainerFlags): SpecOptions['idMappings'] {
  if (uidmap === undefined && gidmap === undefined) return undefined;
  if (uidmap === undefined || gidmap === undefined) throw new Failure('give both --uidmap and --gidmap');
  return { uid: [uidmap], gid: [gidmap] };
}

function checkCapability(name: string): string {
  if (!name.startsWith('CAP_'))
    throw new Failure(`capabilities are named with CAP_: ${name}`, `did you mean CAP_${name}?`);
  return name;
}

const NAMESPACE_TYPES: readonly string[] = [
  'pid',
  'network',
  'uts',
  'mount',
  'user',
  'ipc',
  'cgroup',
  'time',
];

function parseNamespace(text: string): oci.LinuxNamespace {
  const [, type = '', path = ''] = /^([^:]*):(.+)$/.exec(text) ?? [];
  if (!NAMESPACE_TYPES.includes(type)) {
    throw new Failure(`--with-ns: not TYPE:PATH: ${text}`, `TYPE is one of ${NAMESPACE_TYPES.join(', ')}`);
  }
  return { type: type as oci.NamespaceType, path };
}

function parseMount(text: string): oci.SpecMount {
  const mount: { -readonly [K in keyof oci.SpecMount]: oci.SpecMount[K] } = { destination: '' };
  // Fields of CSV: one with a comma in it is quoted.
  for (const [, quoted, plain] of text.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g)) {
    const field = quoted?.replaceAll('""', '"') ?? plain ?? '';
    const [key, value] = split(field, '');
    if (!field.includes('=')) throw new Failure(`--mount: not key=value: ${field}`);
    if (key === 'type') mount.type = value;
    else if (key === 'source' || key === 'src') mount.source = value;
    else if (key === 'destination' || key === 'dst') mount.destination = value;
    else if (key === 'options') mount.options = value.split(':');
    else throw new Failure(`--mount: unknown key ${key}`, 'keys are type, src, dst and options');
  }
  if (mount.destination === '') throw new Failure(`--mount: no dst: ${text}`);
  return mount;
}

export function parseNumber(text: string): number {
  const number = Number(text);
  if (text.trim() === '' || !Number.isFinite(number)) throw new InvalidArgumentError('Not a number.');
  return number;
}

const BYTES: { readonly [suffix: string]: number } = { '': 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30 };

function parseBytes(text: string): number {
  const [, number, suffix = ''] = /^(\d+)([kmg]?)(?:i?b)?$/i.exec(text) ?? [];
  if (number === undefined)
    throw new InvalidArgumentError('Give a number of bytes, such as 67108864 or 64m.');
  return Number(number) * BYTES[suffix.toLowerCase()]!;
}

function parseIdMapping(text: string): oci.IdMapping {
  const [containerID, hostID, size, ...rest] = text.split(':').map(Number);
  if (rest.length > 0 || ![containerID, hostID, size].every(Number.isInteger)) {
    throw new InvalidArgumentError('Give container-id:host-id:length.');
  }
  return { containerID: containerID!, hostID: hostID!, size: size! };
}

function specFromFile(file: string, labels: Record<string, string>): oci.Spec {
  const spec = parseJson(file, '--config') as oci.Spec;
  if (Object.keys(labels).length === 0) return spec;
  return { ...spec, annotations: { ...spec.annotations, ...labels } };
}

function parseJson(file: string, flag: string): object {
  try {
    return JSON.parse(readText(file, flag)) as object;
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure(`${flag}: ${file} is not JSON: ${(error as Error).message}`);
  }
}

function readText(file: string, flag: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new Failure(`${flag}: cannot read ${file}: ${(error as NodeJS.ErrnoException).code}`);
  }
}
