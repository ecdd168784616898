/** The flags that describe a container, shared by `run` and `containers create`: ctr's, and the few that docker's users miss. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { oci } from '../client/client.ts';
import { collect } from './labels.ts';

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
  readonly platform?: string;
  readonly snapshotter?: string;
  readonly snapshotterLabel?: string[];
  readonly remapLabels?: boolean;
  readonly runtime: string;
  readonly runtimeConfigPath?: string;
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
  readonly apparmorDefaultProfile?: string;
  readonly rdtClass?: string;
  readonly pivot?: boolean;
  readonly rootfsPropagation?: string;
  readonly uidmap?: oci.IdMapping;
  readonly gidmap?: oci.IdMapping;
  readonly restart?: string;
  readonly logUri?: string;
}

export const DEFAULT_RUNTIME = 'io.containerd.runc.v2';

export function addContainerFlags(command: Command): Command {
  return command
    .option('--rootfs', 'run a directory in place of an image: the first argument is its path')
    .option('--platform <platform>', 'run what the image has for OS/ARCHITECTURE[/VARIANT]')
    .addOption(
      new Option('--snapshotter <name>', 'where the image is unpacked').env('CONTAINERD_SNAPSHOTTER'),
    )
    .option('--snapshotter-label <key=value>', 'label of the container’s snapshot (repeatable)', collect)
    .option('--remap-labels', 'have the snapshotter map the ids of --uidmap and --gidmap')
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
    .option('--runtime-config-path <file>', 'configuration of a runtime other than the default one')
    .option('--runc-binary <path>', 'runtime to use in place of runc')
    .option('--runc-root <directory>', 'where runc keeps its state')
    .option('--runc-systemd-cgroup', 'have systemd manage the cgroup; needs --cgroup')
    .option('-t, --tty', 'give the process a terminal')
    .option(
      '--with-ns <type:path>',
      'join an existing namespace, or a network by its name (repeatable)',
      collect,
    )
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
    .option('--seccomp', 'filter system calls, by the default profile unless one is named')
    .option('--seccomp-profile <file>', 'the filter of --seccomp, as in the OCI specification')
    .addOption(new Option('--apparmor-default-profile <name>', 'load a profile').hideHelp())
    .option('--apparmor-profile <name>', 'AppArmor profile that the host has loaded')
    .option('--rdt-class <name>', 'class of service for cache and memory bandwidth')
    .option('--no-pivot', 'change the root without pivot_root(2)')
    .option('--rootfs-propagation <mode>', 'propagation of mounts of the root filesystem')
    .option('--uidmap <container:host:length>', 'map user ids in a user namespace', parseIdMapping)
    .option('--gidmap <container:host:length>', 'map group ids in a user namespace', parseIdMapping);
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
