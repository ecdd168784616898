/** Making a container of a pod: its files, its specification, its records; and unmaking all of it. */
import { join } from 'node:path';
import { Container } from '../../proto/gen/containerd/services/containers.ts';
import type { Any } from '../../proto/gen/google/protobuf/any.ts';
import {
  type ContainerConfig,
  type CreateContainerRequest,
  LinuxContainerResources,
  LinuxContainerUser,
  type PodSandboxConfig,
  Signal,
} from '../../proto/gen/runtime/v1/api.ts';
import { pack, SPEC_TYPE } from '../../oci/packed.ts';
import { RootDirectory } from '../../oci/root-directory.ts';
import { signalNumber } from '../../oci/signal.ts';
import type { Spec, User } from '../../oci/spec.ts';
import { failedPrecondition, invalidArgument } from '../../ttrpc/errors.ts';
import { announceCreation } from '../events/containers.ts';
import { reached } from '../failpoint.ts';
import type { Cri } from './cri.ts';
import { removeImageVolumes, withImageIds, withImageVolumes } from './image-volume.ts';
import { type LocalImage, digestsOf, tagsOf } from './local-images.ts';
import { containerName, type Pod, PodContainer } from './pod.ts';
import { containerLabels, handlerOf, now, runtimeOptions } from './pod-life.ts';
import { podFiles } from './pod-files.ts';
import { KUBERNETES, newId } from './registry.ts';
import { clearContainer, unlessGone } from './remains.ts';
import { runtimeFeatures } from './runtime-features.ts';
import { type RuntimeSettings, runtimeOf } from './settings.ts';
import { type VendorDevice, askedDevices, findDevices } from './spec/cdi.ts';
import { containerSpec } from './spec/container-spec.ts';
import type { PodMount } from './spec/mounts.ts';
import type { Neighbours } from './spec/namespaces.ts';
import { mappingsOf } from './user-namespace.ts';

const DEFAULT_STOP_SIGNAL = 'SIGTERM';

/**
 * Makes a container, which is then there to be started.
 *
 * @returns its record
 * @throws RpcError NotFound for the pod or the image; FailedPrecondition for a pod that does not run; Unknown for a name that is taken;
 *         InvalidArgument and others for what cannot be
 */
export async function createContainer(
  cri: Cri,
  { podSandboxId, config: asked, sandboxConfig }: CreateContainerRequest,
  signal: AbortSignal,
): Promise<PodContainer> {
  if (asked?.metadata === undefined)
    throw invalidArgument('container config must include metadata: invalid argument');
  const pod = cri.pods.get(podSandboxId);
  const podConfig = sandboxConfig ?? pod.config;
  if (podConfig?.metadata === undefined || pod.config?.metadata === undefined)
    throw invalidArgument('sandbox config must include metadata: invalid argument');
  const podPid = pidOf(pod);
  const runtime = handlerOf(cri, pod.runtimeHandler);
  const image = await cri.images.get(asked.image?.image ?? '');
  const config = { ...asked, mounts: await withImageIds(cri, asked.mounts) };
  const id = newId();
  const making: PodContainer = PodContainer.fromPartial({
    id,
    name: containerName(asked.metadata, pod.config.metadata),
    podId: pod.id,
    config,
    imageId: image.id,
    imageRef: referenceOf(image),
    createdAt: now(),
    resources: config.linux?.resources ?? LinuxContainerResources.fromPartial({}),
    stopSignal: stopSignalOf(config, image),
    logPath: logPathOf(podConfig, config),
    state: { $case: 'making', value: {} },
  });
  // A name may still be kept for what a daemon before this one had begun.
  await cri.recovered;
  await cri.containers.create(making);
  try {
    reached('pod-container-recorded');
    const neighbours = { pod: podPid, target: targetOf(cri, config, pod.id) };
    const user = await make(
      cri,
      { record: making, config, pod, podConfig, image, runtime, neighbours },
      signal,
    );
    reached('pod-container-made');
    return await cri.containers.change(id, (record) => ({
      ...record,
      user: LinuxContainerUser.fromPartial({
        uid: BigInt(user.uid),
        gid: BigInt(user.gid),
        supplementalGroups: (user.additionalGids ?? []).map(BigInt),
      }),
      state: { $case: 'created', value: {} },
    }));
  } catch (error) {
    await unmakeContainer(cri, making).catch((failure: unknown) =>
      cri.log.error({ err: failure, id }, 'what is left of a failed container stays until the next start'),
    );
    throw error;
  }
}

/** Removes a container's records and files; its task must be gone. Can be repeated. */
export async function unmakeContainer(cri: Cri, { id, podId }: PodContainer): Promise<void> {
  await removeImageVolumes(cri, id, snapshotterOf(cri, podId));
  reached('pod-container-unmounted');
  await clearContainer(cri, id);
  // Where the record among containerd's was not made yet, the snapshot may have been, and a collection may be at it.
  await unlessGone(cri.distribution.snapshotters.get(snapshotterOf(cri, podId)).remove(KUBERNETES, id));
  reached('pod-container-cleared');
  cri.earlyExits.delete(id);
  await cri.containers.remove(id);
}

/** What a container is made from. */
interface Parts {
  readonly record: PodContainer;
  readonly config: ContainerConfig;
  readonly pod: Pod;
  readonly podConfig: PodSandboxConfig;
  readonly image: LocalImage;
  readonly runtime: RuntimeSettings;
  readonly neighbours: Neighbours;
}

async function make(cri: Cri, parts: Parts, signal: AbortSignal): Promise<User> {
  const { record, config, pod, podConfig, image, runtime, neighbours } = parts;
  const { id } = record;
  const snapshotter = snapshotterOf(cri, pod.id);
  await cri.images.unpack(image, snapshotter, signal);
  const session = { namespace: KUBERNETES, lease: undefined, signal, report: () => undefined };
  return await cri.distribution.leased(session, async ({ lease }) => {
    const snapshots = cri.distribution.snapshotters.get(snapshotter);
    const labels = ownerLabels(podConfig);
    const rootfs = await snapshots.prepare(KUBERNETES, id, image.chainId, { lease, signal, labels });
    reached('pod-container-snapshot-made');
    const mounts = await withImageVolumes(cri, config.mounts, {
      containerId: id,
      snapshotter,
      lease,
      signal,
    });
    const features = await runtimeFeatures(runtime.binary_name);
    const vendorDevices = await vendorDevicesOf(cri, config);
    using root = RootDirectory.mount(rootfs);
    const spec = containerSpec({
      id,
      config,
      mounts,
      podId: pod.id,
      pod: podConfig,
      podMounts: podMountsOf(cri, pod.id, podConfig, config),
      neighbours,
      image: image.config,
      imageName: config.image?.userSpecifiedImage || record.imageRef,
      root,
      runtime,
      features,
      vendorDevices,
      settings: cri.settings,
    });
    const container = await cri.metadata.containers.create(
      KUBERNETES,
      recordOf(parts, spec, snapshotter, runtimeOptions(cri, runtime)),
    );
    announceCreation(cri.exchange, KUBERNETES, container);
    return spec.process!.user;
  });
}

/** The container as clients of containerd's API see it. */
function recordOf(
  { record, config, pod, runtime }: Parts,
  spec: Spec,
  snapshotter: string,
  options: Any,
): Container {
  return Container.fromPartial({
    id: record.id,
    labels: containerLabels(config.labels, 'container'),
    image: record.imageRef,
    runtime: { name: runtime.runtime_type, options },
    spec: pack(SPEC_TYPE, spec),
    snapshotter,
    snapshotKey: record.id,
    sandbox: pod.id,
  });
}

/** @throws RpcError FailedPrecondition */
export function pidOf({ id, state }: Pod): number {
  if (state?.$case !== 'ready')
    throw failedPrecondition(`sandbox container ${JSON.stringify(id)} is not running`);
  return state.value.pid;
}

/** Of the pod's runtime handler, or else the one of all. */
export function snapshotterOf({ settings, pods }: Cri, podId: string): string {
  const handler = pods.find(podId)?.runtimeHandler ?? '';
  return runtimeOf(settings, handler)?.snapshotter || settings.snapshotter;
}

/** @throws RpcError NotFound, InvalidArgument for one of another pod, FailedPrecondition for one that does not run */
function targetOf({ containers }: Cri, config: ContainerConfig, podId: string): number | undefined {
  const targetId = config.linux?.securityContext?.namespaceOptions?.targetId ?? '';
  if (targetId === '') return undefined;
  const target = containers.get(targetId);
  if (target.podId !== podId)
    throw invalidArgument(`target container ${target.id} is in another sandbox: invalid argument`);
  if (target.state?.$case !== 'running')
    throw failedPrecondition(`target container ${target.id} is not running`);
  return target.state.value.pid;
}

function podMountsOf(cri: Cri, podId: string, pod: PodSandboxConfig, config: ContainerConfig): PodMount[] {
  const { hostname, hosts, resolvConf, shm } = podFiles(cri.podDirectory(podId), pod);
  const readonly = config.linux?.securityContext?.readonlyRootfs === true;
  return [
    { containerPath: '/etc/hostname', hostPath: hostname, readonly },
    { containerPath: '/etc/hosts', hostPath: hosts, readonly },
    { containerPath: '/etc/resolv.conf', hostPath: resolvConf, readonly },
    { containerPath: '/dev/shm', hostPath: shm },
  ];
}

async function vendorDevicesOf({ settings }: Cri, config: ContainerConfig): Promise<VendorDevice[]> {
  if (!settings.cdi.enable) return [];
  const names = config.CDIDevices.map(({ name }) => name);
  return findDevices(askedDevices(names, config.annotations), settings.cdi.spec_dirs);
}

/** Files in a pod with a user namespace belong to its users. */
function ownerLabels(pod: PodSandboxConfig): Record<string, string> {
  const mappings = mappingsOf(pod);
  const [uids, gids] = [mappings?.uids[0], mappings?.gids[0]];
  if (uids === undefined || gids === undefined) return {};
  const text = ({ containerID, hostID, size }: typeof uids) => `${containerID}:${hostID}:${size}`;
  return {
    'containerd.io/snapshot/uidmapping': text(uids),
    'containerd.io/snapshot/gidmapping': text(gids),
  };
}

/** By digest where there is one, as kubelet compares images. */
function referenceOf(image: LocalImage): string {
  return digestsOf(image)[0] ?? tagsOf(image)[0] ?? image.id;
}

/** The container's own, the image's, SIGTERM. @throws RpcError InvalidArgument for an image's that is none */
function stopSignalOf({ stopSignal }: ContainerConfig, { config }: LocalImage): string {
  if (stopSignal !== Signal.RUNTIME_DEFAULT) {
    const name = Object.entries(Signal).find(([, value]) => value === stopSignal)?.[0] ?? '';
    const known = usualName(name);
    signalNumber(known);
    return known;
  }
  const { stopSignal: fromImage } = config;
  if (fromImage === '') return DEFAULT_STOP_SIGNAL;
  signalNumber(fromImage);
  return fromImage;
}

/** The API writes signs as words, `SIGRTMINPLUS3`, and has an old name that others lack. */
function usualName(name: string): string {
  if (name === 'SIGCLD') return 'SIGCHLD';
  return name.replace(/^SIGRTMINPLUS/, 'SIGRTMIN+').replace(/^SIGRTMAXMINUS/, 'SIGRTMAX-');
}

function logPathOf({ logDirectory }: PodSandboxConfig, { logPath }: ContainerConfig): string {
  return logDirectory === '' || logPath === '' ? '' : join(logDirectory, logPath);
}
