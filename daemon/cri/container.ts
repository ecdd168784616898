/** Containers of pods: made, started, stopped, removed, listed, updated, and programs run in them to their end. */
import { LinuxContainerResources } from '../../proto/gen/runtime/v1/api.ts';
import { pack, RESOURCES_TYPE, SPEC_TYPE } from '../../oci/packed.ts';
import type { Spec } from '../../oci/spec.ts';
import { invalidArgument, notFound } from '../../ttrpc/errors.ts';
import type { ContainerId } from '../identifiers.ts';
import { checkpointContainer } from './container-checkpoint.ts';
import { createContainer } from './container-creation.ts';
import { removeContainerOf, stopContainer } from './container-end.ts';
import { startContainer } from './container-start.ts';
import { listContainers, statusOf, verboseInfo } from './container-view.ts';
import type { Calls, Cri } from './cri.ts';
import { execSync } from './exec-sync.ts';
import { isListed, type PodContainer } from './pod.ts';
import { runningContainer } from './process.ts';
import { KUBERNETES } from './registry.ts';
import { taskOf } from './remains.ts';
import { specResources, withChanges } from './spec/resources.ts';

/** Containers in one answer of a stream. */
const PAGE = 100;

export function containerCalls(
  cri: Cri,
): Calls<
  | 'createContainer'
  | 'startContainer'
  | 'stopContainer'
  | 'removeContainer'
  | 'listContainers'
  | 'streamContainers'
  | 'containerStatus'
  | 'updateContainerResources'
  | 'reopenContainerLog'
  | 'execSync'
  | 'checkpointContainer'
> {
  return {
    async createContainer(request, { signal }) {
      const { id } = await createContainer(cri, request, signal);
      return { containerId: id };
    },

    async startContainer({ containerId }, { signal }) {
      await startContainer(cri, containerId, signal);
      return {};
    },

    async stopContainer({ containerId, timeout }, { signal }) {
      await stopContainer(cri, containerId, secondsOf(timeout), signal);
      return {};
    },

    async removeContainer({ containerId }) {
      await removeContainerOf(cri, containerId);
      return {};
    },

    async listContainers({ filter }) {
      return { containers: listContainers(cri, filter) };
    },

    async *streamContainers({ filter }) {
      const containers = listContainers(cri, filter);
      for (let start = 0; start < containers.length; start += PAGE)
        yield { containers: containers.slice(start, start + PAGE) };
    },

    async containerStatus({ containerId, verbose }) {
      const record = cri.containers.get(containerId);
      if (!isListed(record))
        throw notFound(`container ${JSON.stringify(record.id)} is being made: not found`);
      const status = statusOf(record, await cri.images.byId());
      return { status, info: verbose ? verboseInfo(cri, record) : {} };
    },

    async updateContainerResources({ containerId, linux }, { signal }) {
      const { id } = cri.containers.get(containerId);
      const changes = linux ?? LinuxContainerResources.fromPartial({});
      await cri.turns.take(id, signal, () => updateResources(cri, cri.containers.get(id), changes, signal));
      return {};
    },

    async reopenContainerLog({ containerId }, { signal }) {
      const { id } = runningContainer(cri, containerId);
      await cri.tasks.get(KUBERNETES, id as ContainerId).reopenLog(signal);
      return {};
    },

    async execSync({ containerId, cmd, timeout }, { signal }) {
      return await execSync(cri, containerId, cmd, secondsOf(timeout), signal);
    },

    async checkpointContainer({ containerId, location, timeout }, { signal }) {
      await checkpointContainer(cri, containerId, location, secondsOf(timeout), signal);
      return {};
    },
  };
}

/** What is set of one that runs, is set now; what is written down is what it is started with, and what its status says. */
async function updateResources(
  cri: Cri,
  { id, resources, state }: PodContainer,
  changes: LinuxContainerResources,
  signal: AbortSignal,
): Promise<void> {
  const changed = withChanges(resources, changes);
  const wanted = specResources(changed);
  if (state?.$case === 'running')
    await taskOf(cri, id)?.update({ resources: pack(RESOURCES_TYPE, wanted) }, signal);
  const container = cri.metadata.containers.get(KUBERNETES, id as ContainerId);
  const spec = JSON.parse(Buffer.from(container.spec?.value ?? '{}').toString()) as Spec;
  spec.linux = { ...spec.linux, resources: { ...spec.linux?.resources, ...wanted } };
  const changedContainer = { ...container, spec: pack(SPEC_TYPE, spec) };
  await cri.metadata.containers.update(KUBERNETES, changedContainer, ['spec']);
  await cri.containers.change(id, (record) => ({ ...record, resources: changed }));
}

/** In milliseconds, and no more than a timer can wait for. @throws RpcError InvalidArgument */
function secondsOf(timeout: bigint): number {
  const MAX_SECONDS = 2_000_000n;
  if (timeout < 0n) throw invalidArgument(`the timeout ${timeout} is negative: invalid argument`);
  return Number(timeout > MAX_SECONDS ? MAX_SECONDS : timeout) * 1000;
}
