/** What is mounted in a container. */
import { mkdirSync, realpathSync, statSync } from 'node:fs';
import { isAbsolute, normalize } from 'node:path';
import { DEFAULT_MOUNTS, specMount } from '../../../oci/default-spec.ts';
import type { SpecMount } from '../../../oci/spec.ts';
import { type Mount, MountPropagation } from '../../../proto/gen/runtime/v1/api.ts';
import { failedPrecondition, internal, invalidArgument, messageOf } from '../../../ttrpc/errors.ts';
import type { RuntimeFeatures } from '../runtime-features.ts';
import { mountPointOf } from './mount-points.ts';
import { specMappings } from './namespaces.ts';

/** What a pod's containers have that no client names; a client's mount at the same place goes before. */
export interface PodMount {
  readonly containerPath: string;
  readonly hostPath: string;
  readonly readonly?: boolean;
}

export interface SpecMounts {
  readonly mounts: SpecMount[];
  readonly rootfsPropagation: string | undefined;
}

/** Containers of pods have no file system of their own there, as containerd has it. */
const NOT_IN_PODS = '/run';

const CGROUP_MOUNT = specMount('/sys/fs/cgroup', 'cgroup', 'cgroup', 'nosuid,noexec,nodev,relatime,ro');

/** The propagation of the root, the stronger first. */
const PROPAGATIONS = ['rshared', 'rslave'] as const;

/**
 * @param asked by the client; those of images have become ones of directories by now
 * @throws RpcError InvalidArgument or FailedPrecondition for mounts that contradict themselves or this host
 */
export function mountsFor(
  asked: readonly Mount[],
  ofPod: readonly PodMount[],
  { privileged, features }: { readonly privileged: boolean; readonly features: RuntimeFeatures },
): SpecMounts {
  for (const { containerPath } of asked) {
    if (!isAbsolute(containerPath))
      throw invalidArgument(`mount path ${JSON.stringify(containerPath)} is not absolute: invalid argument`);
  }
  const taken = new Set(asked.map(({ containerPath }) => placeOf(containerPath)));
  const unsorted = [
    ...asked.map((mount) => ({
      place: mount.containerPath,
      make: () => bindMount(mount, features),
    })),
    ...ofPod
      .filter(({ containerPath }) => !taken.has(placeOf(containerPath)))
      .map((mount) => ({ place: mount.containerPath, make: () => podMount(mount) })),
  ];
  const wanted = sortedByDepth(unsorted, ({ place }) => place);
  const places = new Set(wanted.map(({ place }) => placeOf(place)));
  const defaults = [...DEFAULT_MOUNTS, CGROUP_MOUNT]
    .filter(({ destination }) => {
      if (destination === NOT_IN_PODS || places.has(destination)) return false;
      return !(taken.has('/dev') && destination.startsWith('/dev/'));
    })
    .map((mount) => (privileged ? writable(mount) : mount));
  const mounts = [...defaults, ...wanted.map(({ make }) => make())];
  const rootfsPropagation = PROPAGATIONS.find((propagation) =>
    mounts.some(({ type, options }) => type === 'bind' && options?.includes(propagation) === true),
  );
  return { mounts, rootfsPropagation };
}

function bindMount(mount: Mount, features: RuntimeFeatures): SpecMount {
  const { containerPath, hostPath, uidMappings, gidMappings } = mount;
  if (uidMappings.length + gidMappings.length > 0 && !features.userNamespaces)
    throw failedPrecondition(
      `idmap mounts not supported: the runtime handler cannot map the owners of ${JSON.stringify(hostPath)}`,
    );
  const source = sourceOf(hostPath);
  return {
    destination: containerPath,
    type: 'bind',
    source,
    options: ['rbind', propagationOf(mount, source), accessOf(mount, features.recursiveReadOnlyMounts)],
    ...(uidMappings.length > 0 && { uidMappings: specMappings(uidMappings) }),
    ...(gidMappings.length > 0 && { gidMappings: specMappings(gidMappings) }),
  };
}

function podMount({ containerPath, hostPath, readonly = false }: PodMount): SpecMount {
  return specMount(containerPath, 'bind', hostPath, `rbind,rprivate,${readonly ? 'ro' : 'rw'}`);
}

/** A directory is made where there is nothing, as containerd does and kubelet's tests rely on. */
function sourceOf(path: string): string {
  if (!isAbsolute(path))
    throw invalidArgument(`host path ${JSON.stringify(path)} is not absolute: invalid argument`);
  try {
    if (statSync(path, { throwIfNoEntry: false }) === undefined)
      mkdirSync(path, { recursive: true, mode: 0o755 });
    return realpathSync(path);
  } catch (error) {
    throw internal(`failed to prepare the host path ${JSON.stringify(path)}: ${messageOf(error)}`, error);
  }
}

function propagationOf({ propagation }: Mount, source: string): string {
  if (propagation === MountPropagation.PROPAGATION_BIDIRECTIONAL) {
    demandPropagation(source, ['shared:'], 'a shared mount');
    return 'rshared';
  }
  if (propagation === MountPropagation.PROPAGATION_HOST_TO_CONTAINER) {
    demandPropagation(source, ['shared:', 'master:'], 'a shared or slave mount');
    return 'rslave';
  }
  return 'rprivate';
}

function demandPropagation(source: string, prefixes: readonly string[], what: string): void {
  const { path, propagation } = mountPointOf(source);
  if (propagation.some((field) => prefixes.some((prefix) => field.startsWith(prefix)))) return;
  throw failedPrecondition(
    `path ${JSON.stringify(source)} is mounted on ${JSON.stringify(path)} but it is not ${what}`,
  );
}

function accessOf(mount: Mount, isSupported: boolean): string {
  const { readonly, recursiveReadOnly, hostPath, propagation } = mount;
  if (!recursiveReadOnly) return readonly ? 'ro' : 'rw';
  const where = `(hostPath=${JSON.stringify(hostPath)})`;
  if (!readonly) throw invalidArgument(`recursive read-only mount conflicts with RW mount ${where}`);
  if (!isSupported) {
    throw failedPrecondition(
      `RROUnsupported: runtime handler does not support recursive read-only mounts ${where}`,
    );
  }
  if (propagation !== MountPropagation.PROPAGATION_PRIVATE)
    throw invalidArgument(`recursive read-only mount needs private propagation ${where}`);
  return 'rro';
}

function writable(mount: SpecMount): SpecMount {
  if (mount.type !== 'sysfs' && mount.type !== 'cgroup') return mount;
  return { ...mount, options: mount.options?.map((option) => (option === 'ro' ? 'rw' : option)) };
}

/** A path by which two that mean the same place are equal. */
export function placeOf(path: string): string {
  return normalize(path).replace(/(?<=.)\/+$/, '');
}

/** Those that are deeper come later, so that none is hidden by another. */
export function sortedByDepth<T>(mounts: readonly T[], place: (mount: T) => string): T[] {
  return mounts.toSorted((one, other) => depthOf(place(one)) - depthOf(place(other)));
}

function depthOf(path: string): number {
  return placeOf(path).split('/').filter(Boolean).length;
}
