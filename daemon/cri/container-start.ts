/** Starting a container of a pod. */
import { Status } from '../../proto/gen/containerd/types/task.ts';
import { failedPrecondition, messageOf } from '../../ttrpc/errors.ts';
import { reached } from '../failpoint.ts';
import type { ContainerId } from '../identifiers.ts';
import type { Task } from '../runtime/task.ts';
import { timestampNow } from '../timestamp.ts';
import { recordExit } from './container-end.ts';
import { pidOf } from './container-creation.ts';
import type { Cri } from './cri.ts';
import { type PodContainer, stateName } from './pod.ts';
import { now } from './pod-life.ts';
import { KUBERNETES } from './registry.ts';
import { endTask, taskOf } from './remains.ts';

/** Milliseconds that a shim has to say how its container is. */
const STATE_TIMEOUT_MS = 10_000;
/** Of a container that could not be started: containerd's. */
const START_ERROR_CODE = 128;

/** @throws RpcError NotFound; FailedPrecondition for one that is not just created, or whose pod does not run; what the runtime says */
export async function startContainer(cri: Cri, id: string, signal: AbortSignal): Promise<void> {
  const found = cri.containers.get(id);
  await cri.turns.take(found.id, signal, async () => {
    await recoverStart(cri, found.id);
    const record = cri.containers.get(found.id);
    if (record.state?.$case !== 'created')
      throw failedPrecondition(`container ${record.id} is in ${stateName(record)} state`);
    pidOf(cri.pods.get(record.podId));
    try {
      await run(cri, record, signal);
    } catch (error) {
      await writeFailure(cri, record.id, error);
      throw error;
    }
  });
}

/**
 * A daemon before this one may have been killed while it started the container, which may run, and may have ended, with nobody to
 * write it down. One that was not started is taken back.
 */
export async function recoverStart(cri: Cri, id: string): Promise<void> {
  if (cri.containers.find(id)?.state?.$case !== 'created') return;
  const task = taskOf(cri, id);
  if (task === undefined) return;
  const { status, exitStatus = 0, exitedAt } = await task.state('', AbortSignal.timeout(STATE_TIMEOUT_MS));
  if (status === Status.CREATED) return endTask(cri, id);
  await writeStart(cri, id, task, now());
  if (status !== Status.STOPPED) return;
  const at = { ...timestampNow(), ...exitedAt };
  await recordExit(cri, id, { pid: task.pid, status: exitStatus, exitedAt: at });
}

async function run(cri: Cri, record: PodContainer, signal: AbortSignal): Promise<void> {
  const { metadata, distribution, tasks } = cri;
  const id = record.id as ContainerId;
  const container = metadata.containers.get(KUBERNETES, id);
  const snapshots = distribution.snapshotters.get(container.snapshotter);
  const request = {
    spec: container.spec,
    runtime: container.runtime?.name ?? '',
    options: undefined,
    containerOptions: container.runtime?.options,
    rootfs: await snapshots.mounts(KUBERNETES, container.snapshotKey, signal),
    ...stdioOf(cri, record),
    checkpoint: '',
  };
  const task = await tasks.create(KUBERNETES, id, request, signal);
  reached('pod-container-task-made');
  const startedAt = now();
  await task.start('', signal);
  reached('pod-container-started');
  await writeStart(cri, record.id, task, startedAt);
}

/** Writes down that it runs, and how it has ended if that was heard of before. */
async function writeStart(cri: Cri, id: string, task: Task, startedAt: bigint): Promise<void> {
  const value = { pid: task.pid, startedAt };
  await cri.containers.change(id, (before) => ({ ...before, state: { $case: 'running', value } }));
  const early = cri.earlyExits.get(id);
  cri.earlyExits.delete(id);
  // It may be that of a process that was taken back.
  if (early?.pid === task.pid) await recordExit(cri, id, early);
}

/** The shim writes the log, and copies to who is attached. */
function stdioOf({ settings }: Cri, { config, logPath }: PodContainer) {
  const path = logPath.split('/').map(encodeURIComponent).join('/') || '/';
  const { stdin = false, stdinOnce = false, tty = false } = config ?? {};
  return {
    stdin: stdin ? `attach:///?once=${stdinOnce && !tty}` : '',
    stdout: `cri://${path}?line=${settings.max_container_log_line_size}`,
    stderr: '',
    terminal: tty,
  };
}

/** It has ended then, as far as kubelet is concerned, and its status says why. */
async function writeFailure(cri: Cri, id: string, error: unknown): Promise<void> {
  // A daemon that is on its way out leaves it to the next one.
  if (cri.closing.aborted) return;
  await endTask(cri, id);
  cri.earlyExits.delete(id);
  const at = now();
  const exit = { exitCode: START_ERROR_CODE, reason: 'StartError', message: messageOf(error) };
  await cri.containers.change(id, (before) => ({
    ...before,
    state: { $case: 'exited', value: { startedAt: 0n, finishedAt: at, ...exit } },
  }));
}
