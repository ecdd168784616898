/** A pod's life: made, stopped, removed. Each step is recorded before it changes anything, so that a later daemon can go on or undo. */
import { isNamespace } from '../network/netns.ts';
import { Options } from '../../proto/gen/containerd/runtime/runc.ts';
import { Container } from '../../proto/gen/containerd/services/containers.ts';
import type { Any } from '../../proto/gen/google/protobuf/any.ts';
import { NamespaceMode } from '../../proto/gen/runtime/v1/api.ts';
import { pack, SPEC_TYPE } from '../../oci/packed.ts';
import { invalidArgument, messageOf } from '../../ttrpc/errors.ts';
import { messageAny } from '../distribution/any.ts';
import { announceCreation } from '../events/containers.ts';
import { reached } from '../failpoint.ts';
import type { ContainerId } from '../identifiers.ts';
import type { Task } from '../runtime/task.ts';
import { timestampNow } from '../timestamp.ts';
import { keepNamespaceOf } from './namespace-of.ts';
import type { Cri } from './cri.ts';
import { Label, type Pod, namespacesOf, nanosecondsOf, userNamespaceOf } from './pod.ts';
import { makePodFiles, removePodFiles, unmountShm } from './pod-files.ts';
import { sandboxImage } from './pause-image.ts';
import { KUBERNETES } from './registry.ts';
import { clearContainer, endTask } from './remains.ts';
import { sandboxSpec } from './sandbox-spec.ts';
import { type RuntimeSettings, runtimeOf } from './settings.ts';
import { mappingsOf } from './user-namespace.ts';

/** Bytes of a label's key and value together, which containerd's clients keep to. */
const MAX_LABEL_BYTES = 4096;

/** Now, as records have times. */
export function now(): bigint {
  return nanosecondsOf(timestampNow());
}

/** The runtime of a handler. @throws RpcError InvalidArgument for one that is not configured */
export function handlerOf({ settings }: Pick<Cri, 'settings'>, handler: string): RuntimeSettings {
  const runtime = runtimeOf(settings, handler);
  if (runtime === undefined)
    throw invalidArgument(
      `no runtime for ${JSON.stringify(handler || settings.default_runtime_name)} is configured: invalid argument`,
    );
  return runtime;
}

/** What the shim of a runtime is told. */
export function runtimeOptions(
  { settings }: Pick<Cri, 'settings'>,
  { binary_name: binaryName }: RuntimeSettings,
): Any {
  return messageAny('containerd.runc.v1.Options', Options, {
    binaryName,
    systemdCgroup: settings.systemd_cgroup,
  });
}

/** The annotations that a handler lets through; `*` in a pattern stands for anything. */
export function passedOf(
  annotations: { readonly [key: string]: string },
  patterns: readonly string[],
): { [key: string]: string } {
  const rules = patterns.map((pattern) => {
    const parts = pattern.split('*').map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`));
    return new RegExp(`^${parts.join('.*')}$`, 's');
  });
  return Object.fromEntries(
    Object.entries(annotations).filter(([key]) => rules.some((rule) => rule.test(key))),
  );
}

/** Labels as containers of containerd's have them: those that are too long for it are left out. */
export function containerLabels(labels: { readonly [key: string]: string }, kind: 'sandbox' | 'container') {
  const short = Object.entries(labels).filter(
    ([key, value]) => Buffer.byteLength(key) + Buffer.byteLength(value) <= MAX_LABEL_BYTES,
  );
  return { ...Object.fromEntries(short), [Label.Kind]: kind };
}

/**
 * Makes everything that a recorded pod consists of, and starts it.
 *
 * @returns the pod, which is ready
 * @throws RpcError; what has been made is for `clearPod`
 */
export async function makePod(cri: Cri, pod: Pod, signal: AbortSignal): Promise<Pod> {
  const { id } = pod;
  const config = pod.config!;
  const isNode = namespacesOf(config).network === NamespaceMode.NODE;
  // In a user namespace the network has to be that one's own; the runtime makes both.
  const isMapped = userNamespaceOf(config) !== undefined;
  makePodFiles(cri.podDirectory(id), config);
  reached('pod-files-made');
  if (!isNode && !isMapped) {
    cri.networks.make(id);
    reached('pod-netns-made');
  }
  const stop = new AbortController();
  const both = AbortSignal.any([signal, stop.signal]);
  let addresses: string[] = [];
  let task: Task | undefined;
  const attach = async () => {
    if (isNode) return;
    const cgroupParent = config.linux?.cgroupParent ?? '';
    addresses = await cri.networks.attach({ id, netns: cri.networks.path(id), config, cgroupParent }, both);
    reached('pod-attached');
  };
  const create = async () => {
    task = await createTask(cri, pod, isNode ? '' : isMapped ? undefined : cri.networks.path(id), both);
    reached('pod-task-created');
  };
  if (isMapped && !isNode) {
    await create();
    keepNamespaceOf(task!.pid, cri.networks.path(id));
    reached('pod-netns-made');
    await attach();
  } else {
    await inParallel([attach(), create()], stop);
  }
  const pid = await task!.start('', signal);
  reached('pod-task-started');
  const ready = await cri.pods.change(id, (old) => ({
    ...old,
    netns: isNode ? '' : cri.networks.path(id),
    addresses,
    state: { $case: 'ready', value: { pid } },
  }));
  reached('pod-ready');
  // It may have ended before anybody listened for it.
  await cri.exits.check(id);
  return ready;
}

/** When one fails the other is told to stop, and has stopped when this rejects. */
async function inParallel(parts: readonly Promise<void>[], stop: AbortController): Promise<void> {
  const outcomes = await Promise.allSettled(
    parts.map(async (part) => {
      try {
        await part;
      } catch (error) {
        stop.abort(error);
        throw error;
      }
    }),
  );
  const failed = outcomes.find((outcome) => outcome.status === 'rejected');
  if (failed !== undefined) throw (stop.signal.reason ?? failed.reason) as Error;
}

async function createTask(cri: Cri, pod: Pod, netns: string | undefined, signal: AbortSignal): Promise<Task> {
  const { id, runtimeHandler } = pod;
  const config = pod.config!;
  const runtime = handlerOf(cri, runtimeHandler);
  const snapshotter = runtime.snapshotter || cri.settings.snapshotter;
  const image = await sandboxImage(cri, snapshotter, signal);
  const passed = passedOf(config.annotations, runtime.pod_annotations);
  const directory = cri.podDirectory(id);
  const { settings } = cri;
  const spec = sandboxSpec({ id, config, settings, image: image.config, directory, netns, passed });
  const record = await cri.metadata.containers.create(
    KUBERNETES,
    Container.fromPartial({
      id,
      labels: containerLabels(config.labels, 'sandbox'),
      image: image.names.find((name) => !name.startsWith('sha256:')) ?? image.id,
      runtime: { name: runtime.runtime_type, options: runtimeOptions(cri, runtime) },
      spec: pack(SPEC_TYPE, spec),
      snapshotter,
      snapshotKey: id,
    }),
  );
  announceCreation(cri.exchange, KUBERNETES, record);
  reached('pod-registered');
  const mapping = mappingsOf(config);
  const owner =
    mapping && `${mapping.uids[0]!.containerID}:${mapping.uids[0]!.hostID}:${mapping.uids[0]!.size}`;
  const labels: Record<string, string> =
    owner === undefined
      ? {}
      : { 'containerd.io/snapshot/uidmapping': owner, 'containerd.io/snapshot/gidmapping': owner };
  const mounts = await cri.distribution.snapshotters
    .get(snapshotter)
    .prepare(KUBERNETES, id, image.chainId, { labels, signal });
  reached('pod-snapshot-made');
  return cri.tasks.create(
    KUBERNETES,
    id as ContainerId,
    {
      spec: record.spec,
      runtime: runtime.runtime_type,
      options: undefined,
      containerOptions: record.runtime?.options,
      rootfs: mounts,
      stdin: '',
      stdout: '',
      stderr: '',
      terminal: false,
      checkpoint: '',
    },
    signal,
  );
}

/**
 * Ends the pod's process and gives its network back. Its containers have ended before.
 *
 * @throws RpcError as CNI plugins fail; it can be repeated
 */
export async function stopPod(cri: Cri, id: string): Promise<void> {
  await cri.pods.changeIfThere(id, (pod) =>
    pod.state?.$case === 'ready' ? { ...pod, state: { $case: 'ended', value: { at: now() } } } : pod,
  );
  reached('pod-ended');
  await releasePod(cri, id);
  await cri.pods.changeIfThere(id, (pod) =>
    pod.state?.$case === 'ended' ? { ...pod, state: { $case: 'stopped', value: { at: now() } } } : pod,
  );
  reached('pod-stopped');
}

async function releasePod(cri: Cri, id: string): Promise<void> {
  await endTask(cri, id);
  reached('pod-task-deleted');
  const { config } = cri.pods.get(id);
  // Plugins that still run for a daemon before this one hold up only pods that have to do with plugins.
  if (config === undefined || namespacesOf(config).network !== NamespaceMode.NODE) {
    await cri.networks.detach(id);
    reached('pod-detached');
    cri.networks.remove(id);
    reached('pod-netns-removed');
  }
  unmountShm(cri.podDirectory(id));
}

/** Removes everything of the pod, at last its record: its name is free then. @throws RpcError; it can be repeated */
export async function clearPod(cri: Cri, id: string): Promise<void> {
  await releasePod(cri, id);
  await clearContainer(cri, id);
  removePodFiles(cri.podDirectory(id));
  reached('pod-cleared');
  await cri.pods.remove(id);
}

/**
 * Undoes a pod that could not be made. What cannot be undone now leaves a pod that is not ready, for kubelet to stop and remove.
 */
export async function undoPod(cri: Cri, id: string): Promise<void> {
  try {
    await clearPod(cri, id);
  } catch (error) {
    cri.log.warn({ pod: id, error: messageOf(error) }, 'a pod that could not be made cannot be undone yet');
    await cri.pods.changeIfThere(id, (pod) => ({ ...pod, state: { $case: 'ended', value: { at: now() } } }));
  }
}

/** Whether the pod's network is still kept. */
export function hasNetwork(cri: Cri, id: string): boolean {
  return isNamespace(cri.networks.path(id));
}
