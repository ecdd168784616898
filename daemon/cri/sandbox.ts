/** Pods as kubelet has them: run, stopped, removed, listed. */
import {
  type LinuxContainerResources,
  LinuxPodSandboxConfig,
  NamespaceMode,
  type PodSandbox,
  type PodSandboxConfig,
  type PodSandboxFilter,
  type PodSandboxStatus,
} from '../../proto/gen/runtime/v1/api.ts';
import { invalidArgument, notFound } from '../../ttrpc/errors.ts';
import type { PartialMessage } from '../../ttrpc/service.ts';
import { untilAborted } from '../distribution/turns.ts';
import { reached } from '../failpoint.ts';
import { statusOf as containerStatusOf } from './container-view.ts';
import type { Calls, Cri } from './cri.ts';
import { type Pod, isListed, matches, namespacesOf, podName, sandboxState } from './pod.ts';
import { clearPod, handlerOf, hasNetwork, makePod, now, stopPod, undoPod } from './pod-life.ts';
import { KUBERNETES, newId } from './registry.ts';
import { removeContainerOf, stopContainerOf } from './container-end.ts';
import { taskOf } from './remains.ts';
import { runtimeOf } from './settings.ts';
import { mappingsOf } from './user-namespace.ts';

/** How many pods a message of a streamed list has. */
const PODS_A_MESSAGE = 100;

export function sandboxCalls(
  cri: Cri,
): Calls<
  | 'runPodSandbox'
  | 'stopPodSandbox'
  | 'removePodSandbox'
  | 'podSandboxStatus'
  | 'listPodSandbox'
  | 'streamPodSandboxes'
  | 'updatePodSandboxResources'
> {
  return {
    async runPodSandbox({ config, runtimeHandler }, { signal }) {
      const checked = check(config);
      handlerOf(cri, runtimeHandler);
      await untilAborted(cri.recovered, signal);
      const id = newId();
      await cri.turns.take(id, signal, async () => {
        const pod = await recorded(cri, id, checked, runtimeHandler);
        try {
          await makePod(cri, pod, signal);
        } catch (error) {
          await undoPod(cri, id);
          throw error;
        }
      });
      return { podSandboxId: id };
    },

    async stopPodSandbox({ podSandboxId }) {
      await stopSandbox(cri, podSandboxId);
      return {};
    },

    async removePodSandbox({ podSandboxId }) {
      await removeSandbox(cri, podSandboxId);
      return {};
    },

    async podSandboxStatus({ podSandboxId, verbose }) {
      const pod = cri.pods.get(podSandboxId);
      if (!isListed(pod)) throw notFound(`sandbox ${JSON.stringify(pod.id)} is being made: not found`);
      const images = await cri.images.byId();
      return {
        status: statusOf(pod),
        info: verbose ? { info: JSON.stringify(infoOf(cri, pod)) } : {},
        containersStatuses: cri
          .containersOf(pod.id)
          .filter(isListed)
          .map((container) => containerStatusOf(container, images)),
        timestamp: now(),
      };
    },

    async listPodSandbox({ filter }) {
      return { items: listed(cri, filter) };
    },

    async *streamPodSandboxes({ filter }) {
      const pods = listed(cri, filter);
      for (let index = 0; index < pods.length; index += PODS_A_MESSAGE)
        yield { podSandboxes: pods.slice(index, index + PODS_A_MESSAGE) };
    },

    async updatePodSandboxResources({ podSandboxId, overhead, resources }) {
      const { id } = cri.pods.get(podSandboxId);
      await cri.pods.change(id, (pod) => withResources(pod, overhead, resources));
      return {};
    },
  };
}

/** Stops a pod and all that runs in it. One that is not there has been stopped. @throws RpcError as CNI plugins fail */
export async function stopSandbox(cri: Cri, podSandboxId: string): Promise<void> {
  const pod = cri.pods.find(podSandboxId);
  if (pod === undefined) return;
  // Containers that are being created meanwhile would outlive a pod that is not theirs any more.
  await cri.turns.take(pod.id, undefined, async () => {
    for (const container of cri.containersOf(pod.id)) await stopContainerOf(cri, container.id);
    await stopPod(cri, pod.id);
  });
}

/** Removes a pod with all that is in it. One that is not there has been removed. @throws RpcError as CNI plugins fail */
export async function removeSandbox(cri: Cri, podSandboxId: string): Promise<void> {
  const found = cri.pods.find(podSandboxId);
  if (found === undefined) return;
  const { id } = found;
  await cri.turns.take(id, undefined, async () => {
    const pod = cri.pods.find(id);
    if (pod === undefined) return;
    for (const container of cri.containersOf(id)) await stopContainerOf(cri, container.id);
    if (pod.state?.$case !== 'stopped') await stopPod(cri, id);
    await cri.pods.change(id, (old) => ({ ...old, state: { $case: 'removing', value: { at: now() } } }));
    reached('pod-removing');
    for (const container of cri.containersOf(id)) await removeContainerOf(cri, container.id);
    await clearPod(cri, id);
  });
}

/** @throws RpcError InvalidArgument for what no pod can be made of */
function check(config: PodSandboxConfig | undefined): PodSandboxConfig {
  if (config === undefined)
    throw invalidArgument('the configuration of the sandbox is missing: invalid argument');
  const { metadata } = config;
  if (metadata === undefined || metadata.name === '')
    throw invalidArgument('the metadata of the sandbox is missing: invalid argument');
  const { network, pid, ipc } = namespacesOf(config);
  for (const [what, mode] of Object.entries({ network, pid, ipc }))
    if (mode === NamespaceMode.TARGET)
      throw invalidArgument(
        `the ${what} namespace of a sandbox cannot be that of a container: invalid argument`,
      );
  mappingsOf(config);
  return config;
}

/** Says that the pod is about to be made. @throws RpcError Unknown when its name is taken */
async function recorded(
  cri: Cri,
  id: string,
  config: PodSandboxConfig,
  runtimeHandler: string,
): Promise<Pod> {
  const pod: Pod = {
    id,
    name: podName(config.metadata!),
    config,
    runtimeHandler,
    createdAt: now(),
    netns: '',
    addresses: [],
    state: { $case: 'making', value: {} },
  };
  await cri.pods.create(pod);
  reached('pod-recorded');
  return pod;
}

function listed(cri: Cri, filter: PodSandboxFilter | undefined): PartialMessage<PodSandbox>[] {
  const { id = '', state, labelSelector = {} } = filter ?? {};
  return cri.pods
    .list()
    .filter(isListed)
    .filter((pod) => id === '' || pod.id.startsWith(id))
    .filter((pod) => state === undefined || sandboxState(pod) === state.state)
    .filter((pod) => matches(pod.config?.labels ?? {}, labelSelector))
    .map((pod) => {
      const { metadata, labels = {}, annotations = {} } = pod.config ?? {};
      const { createdAt, runtimeHandler } = pod;
      return {
        id: pod.id,
        metadata,
        state: sandboxState(pod),
        createdAt,
        labels,
        annotations,
        runtimeHandler,
      };
    });
}

/** A pod as `PodSandboxStatus` and events have it. */
export function statusOf(pod: Pod): PartialMessage<PodSandboxStatus> {
  const { id, config, createdAt, runtimeHandler, addresses } = pod;
  const { metadata, labels = {}, annotations = {} } = config ?? {};
  const [ip = '', ...more] = addresses;
  return {
    id,
    metadata,
    state: sandboxState(pod),
    createdAt,
    network: { ip, additionalIps: more.map((ip) => ({ ip })) },
    linux: { namespaces: { options: config && namespacesOf(config) } },
    labels,
    annotations,
    runtimeHandler,
  };
}

/** What people look for when something is wrong. Keys are those that crictl's readers know. */
export function infoOf(cri: Cri, pod: Pod): object {
  const { id, config, netns, runtimeHandler, addresses, state } = pod;
  const task = taskOf(cri, id);
  const record = cri.metadata.containers.list(KUBERNETES, [`id==${id}`])[0];
  return {
    pid: state?.$case === 'ready' ? state.value.pid : 0,
    processStatus: task === undefined ? 'deleted' : (state?.$case ?? ''),
    netNamespaceClosed: netns !== '' && !hasNetwork(cri, id),
    image: record?.image ?? '',
    snapshotKey: record?.snapshotKey ?? '',
    snapshotter: record?.snapshotter ?? '',
    runtimeHandler,
    runtimeType: runtimeOf(cri.settings, runtimeHandler)?.runtime_type ?? '',
    config: config && jsonOf(config),
    runtimeSpec: record?.spec && (JSON.parse(Buffer.from(record.spec.value).toString()) as unknown),
    metadata: { netNSPath: netns, ips: addresses },
  };
}

/** Numbers of 64 bits as JSON has numbers. */
export function jsonOf(message: object): unknown {
  return JSON.parse(
    JSON.stringify(message, (_, value: unknown) => (typeof value === 'bigint' ? Number(value) : value)),
  );
}

function withResources(
  pod: Pod,
  overhead: LinuxContainerResources | undefined,
  resources: LinuxContainerResources | undefined,
): Pod {
  const { config } = pod;
  if (config === undefined) return pod;
  const linux = LinuxPodSandboxConfig.fromPartial({ ...config.linux, overhead, resources });
  return { ...pod, config: { ...config, linux } };
}
