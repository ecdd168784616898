/** From arguments and flags to a stored container, shared by `run` and `containers create`. */
import { resolve } from 'node:path';
import type { Container, ContainerOptions, oci, RestartPolicy } from '../client/client.ts';
import { type ContainerFlags, DEFAULT_RUNTIME } from './container-flags.ts';
import { parseJson, specOptions } from './container-spec.ts';
import { joinedNamespaces } from './joined-namespaces.ts';
import { Failure } from './failure.ts';
import { parseLabels } from './labels.ts';
import type { Session } from './session.ts';

/** The arguments of a command that makes a container: `[--config] ID`, `IMAGE ID [COMMAND…]` or `ROOTFS ID [COMMAND…]`. */
export interface ContainerArguments {
  /** The image's name, or the directory of the root filesystem with `--rootfs`; empty with `--config`. */
  readonly root: string;
  readonly id: string;
  readonly command: readonly string[];
}

/** @throws Failure when they do not fit the flags */
export function containerArguments(words: readonly string[], flags: ContainerFlags): ContainerArguments {
  checkFlags(flags);
  if (flags.config !== undefined) {
    const [id, ...rest] = words;
    if (id === undefined) throw new Failure('a container id must be given');
    if (rest.length > 0) throw new Failure('with --config only the container id is given');
    return { root: '', id, command: [] };
  }
  const [root, id, ...command] = words;
  if (root === undefined) {
    throw new Failure(flags.rootfs === true ? 'a root filesystem must be given' : 'an image must be given');
  }
  if (id === undefined) {
    throw new Failure(
      `a container id must be given after the ${flags.rootfs === true ? 'root filesystem' : 'image'}`,
    );
  }
  return { root, id, command };
}

/** Refused before anything is asked of the daemon: what cannot be done, and what would have no effect. */
function checkFlags(flags: ContainerFlags): void {
  if (flags.gpus !== undefined) throw new Failure('--gpus: GPUs are not supported');
  if (flags.cni === true) {
    throw new Failure('--cni: CNI networks are not supported', 'use --net-host, or --with-ns network:NAME');
  }
  if (flags.apparmorDefaultProfile !== undefined) {
    throw new Failure(
      '--apparmor-default-profile: profiles are not loaded here',
      'load one with apparmor_parser and name it with --apparmor-profile',
    );
  }
  const ofImages = {
    '--platform': flags.platform,
    '--snapshotter-label': flags.snapshotterLabel,
    '--remap-labels': flags.remapLabels,
  };
  const isImage = flags.rootfs !== true && flags.config === undefined;
  for (const [flag, value] of Object.entries(ofImages)) {
    if (value !== undefined && !isImage) throw new Failure(`${flag} is for images`);
  }
  const isMapped = flags.uidmap !== undefined || flags.gidmap !== undefined;
  if (flags.remapLabels === true && !isMapped)
    throw new Failure('--remap-labels needs --uidmap and --gidmap');
}

/** Stores the container that flags and arguments describe. */
export async function createContainer(
  { client, call }: Session,
  { root, id, command }: ContainerArguments,
  flags: ContainerFlags,
): Promise<Container> {
  const labels = parseLabels(flags.label ?? []);
  const made = { ...call, labels, runtime: runtimeOf(flags), restart: restartOf(flags) };
  if (flags.config !== undefined) {
    return await client.containers.create(id, {
      ...made,
      spec: specFromFile(flags.config, labels),
    });
  }
  const options = {
    ...specOptions(command, flags, labels),
    namespaces: await joinedNamespaces({ client, call }, flags.withNs),
  };
  if (flags.rootfs === true) {
    const spec = client.spec(id, { ...options, rootfs: resolve(root) });
    return await client.containers.create(id, { ...made, spec });
  }
  return await client.containers.createFromImage(id, root, {
    ...made,
    spec: options,
    platform: flags.platform,
    snapshotter: flags.snapshotter,
    snapshotLabels: { ...parseLabels(flags.snapshotterLabel ?? []), ...remapLabels(flags) },
  });
}

/** By these a snapshotter knows how to shift the owners of files: containerd's. */
function remapLabels({ remapLabels, uidmap, gidmap }: ContainerFlags): Record<string, string> {
  if (remapLabels !== true || uidmap === undefined || gidmap === undefined) return {};
  const mapping = ({ containerID, hostID, size }: oci.IdMapping) => `${containerID}:${hostID}:${size}`;
  return {
    'containerd.io/snapshot/uidmapping': mapping(uidmap),
    'containerd.io/snapshot/gidmapping': mapping(gidmap),
  };
}

/** What is started again writes where it wrote before, if that is a log. */
function restartOf({ restart, logUri }: ContainerFlags): ContainerOptions['restart'] {
  return restart === undefined ? undefined : { policy: restart as RestartPolicy, log: logUri };
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
  const { runtime: name, runtimeConfigPath: configPath, runcBinary, runcSystemdCgroup, cgroup } = flags;
  const isRunc = name === DEFAULT_RUNTIME || name.startsWith('/');
  if (!isRunc && (runcBinary !== undefined || runcSystemdCgroup === true)) {
    throw new Failure(`--runc-binary and --runc-systemd-cgroup are options of ${DEFAULT_RUNTIME}`);
  }
  if (runcSystemdCgroup === true && !cgroup) {
    throw new Failure('--runc-systemd-cgroup needs --cgroup', 'such as --cgroup machine.slice:moor:NAME');
  }
  if (configPath !== undefined) {
    if (name === DEFAULT_RUNTIME)
      throw new Failure(`--runtime-config-path is no option of ${DEFAULT_RUNTIME}`);
    return { name, configPath };
  }
  return { name, runc: isRunc ? runcOptions(flags) : undefined };
}

function specFromFile(file: string, labels: Record<string, string>): oci.Spec {
  const spec = parseJson(file, '--config') as oci.Spec;
  if (Object.keys(labels).length === 0) return spec;
  return { ...spec, annotations: { ...spec.annotations, ...labels } };
}
