/** The OCI specification of a pod's container: what kubelet asks for, on what the image says. */
import { OCI_VERSION } from '../../../oci/default-spec.ts';
import { DEFAULT_PATH, withEnvironment } from '../../../oci/environment.ts';
import type { RunConfig } from '../../../oci/image-config.ts';
import type { RootDirectory } from '../../../oci/root-directory.ts';
import type { Process, Spec } from '../../../oci/spec.ts';
import {
  type ContainerConfig,
  LinuxContainerResources,
  type LinuxContainerSecurityContext,
  type Mount,
  type PodSandboxConfig,
} from '../../../proto/gen/runtime/v1/api.ts';
import { failedPrecondition, invalidArgument } from '../../../ttrpc/errors.ts';
import { cgroupsPath } from '../cgroup.ts';
import type { RuntimeFeatures } from '../runtime-features.ts';
import { leastOomScore } from '../sandbox-spec.ts';
import type { CriSettings, RuntimeSettings } from '../settings.ts';
import { demandUsersOf, mappingsOf } from '../user-namespace.ts';
import { annotationsOf } from './annotations.ts';
import { capabilitiesFor } from './capabilities.ts';
import { type VendorDevice, injectDevices } from './cdi.ts';
import { devicesFor } from './devices.ts';
import { mountsFor, type PodMount } from './mounts.ts';
import { type Neighbours, namespacesFor } from './namespaces.ts';
import { apparmorOf, profileOf, seccompOf } from './profiles.ts';
import { specResources } from './resources.ts';
import { userOf } from './user.ts';

export interface ContainerBasis {
  readonly id: string;
  readonly config: ContainerConfig;
  /** With those of images as directories. */
  readonly mounts: readonly Mount[];
  readonly podId: string;
  readonly pod: PodSandboxConfig;
  /** What all containers of the pod have mounted. */
  readonly podMounts: readonly PodMount[];
  readonly neighbours: Neighbours;
  readonly image: RunConfig;
  readonly imageName: string;
  /** The container's own files, before anything has run. */
  readonly root: RootDirectory;
  readonly runtime: RuntimeSettings;
  readonly features: RuntimeFeatures;
  readonly vendorDevices: readonly VendorDevice[];
  readonly settings: CriSettings;
}

/** Where runtimes find the root filesystem that the daemon mounts for a task, beside the specification. */
const BUNDLE_ROOTFS = 'rootfs';

/** @throws RpcError for what contradicts itself, this host or the pod */
export function containerSpec(basis: ContainerBasis): Spec {
  const { config, runtime, settings } = basis;
  const security = config.linux?.securityContext;
  const sandbox = basis.pod.linux?.securityContext;
  const privileged = security?.privileged === true;
  if (privileged && sandbox?.privileged !== true)
    throw failedPrecondition('no privileged container allowed in sandbox');
  const process = processOf(basis, security);
  const { mounts, rootfsPropagation } = mountsFor(basis.mounts, basis.podMounts, {
    privileged,
    features: basis.features,
  });
  const { devices, rules } = devicesFor(config.devices, {
    privileged,
    hostDevices: !runtime.privileged_without_host_devices,
  });
  const seccomp = profileOf(security?.seccomp, security?.seccompProfilePath ?? '', 'seccomp');
  const mappings = mappingsOf(basis.pod);
  demandUsersOf(mappings, security?.namespaceOptions?.usernsOptions);
  const resources = config.linux?.resources ?? LinuxContainerResources.fromPartial({});
  const spec: Spec = {
    ociVersion: OCI_VERSION,
    root: { path: BUNDLE_ROOTFS, readonly: security?.readonlyRootfs === true || undefined },
    process,
    mounts,
    annotations: annotationsOf(basis),
    linux: {
      cgroupsPath: cgroupsPath(settings, basis.pod, basis.id),
      namespaces: namespacesFor(security?.namespaceOptions, mappings !== undefined, basis.neighbours),
      uidMappings: mappings?.uids,
      gidMappings: mappings?.gids,
      devices: devices.length === 0 ? undefined : devices,
      resources: { ...specResources(resources), devices: rules },
      rootfsPropagation,
      seccomp: privileged ? undefined : seccompOf(seccomp, process.capabilities?.bounding ?? []),
      // Kubelet names those of an ordinary container itself; none is what `procMount: Unmasked` comes to.
      maskedPaths: privileged ? undefined : security?.maskedPaths,
      readonlyPaths: privileged ? undefined : security?.readonlyPaths,
    },
  };
  injectDevices(spec, basis.vendorDevices);
  // Without fields that are undefined, as JSON has it.
  return JSON.parse(JSON.stringify(spec)) as Spec;
}

function processOf(basis: ContainerBasis, security: LinuxContainerSecurityContext | undefined): Process {
  const { config, image, root } = basis;
  const apparmor = profileOf(security?.apparmor, security?.apparmorProfile ?? '', 'apparmor');
  const resources = config.linux?.resources;
  return {
    terminal: config.tty || undefined,
    user: userOf(security, image.user, root),
    args: argumentsOf(config, image),
    env: environmentOf(basis),
    cwd: config.workingDir || image.workingDir || '/',
    capabilities: capabilitiesFor(security),
    noNewPrivileges: security?.noNewPrivs === true,
    apparmorProfile: apparmorOf(apparmor, security?.privileged === true),
    oomScoreAdj:
      resources === undefined ? undefined : Math.max(Number(resources.oomScoreAdj), leastOomScore()),
  };
}

/** A command replaces the image's entry point; without arguments the image's are taken only for its own entry point. */
function argumentsOf({ command, args }: ContainerConfig, { entrypoint, cmd }: RunConfig): string[] {
  const given =
    command.length > 0 ? [...command, ...args] : [...entrypoint, ...(args.length > 0 ? args : cmd)];
  if (given.length === 0) throw invalidArgument('no command specified: invalid argument');
  return given;
}

/** Later ones go before: the image's, then the container's in the order they are given. */
function environmentOf({ config, image, pod }: ContainerBasis): string[] {
  const hostname = pod.hostname;
  const base = [
    DEFAULT_PATH,
    ...(config.tty ? ['TERM=xterm'] : []),
    ...(hostname === '' ? [] : [`HOSTNAME=${hostname}`]),
  ];
  const own = config.envs.map(({ key, value }) => `${key}=${value}`);
  return withEnvironment(withEnvironment(base, image.env), own);
}
