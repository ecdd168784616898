/** The controller `podsandbox`: kubelet's pods, for clients that know sandboxes and no CRI. It makes none. */
import { Code, failedPrecondition, isCode, notFound, unimplemented } from '../../ttrpc/errors.ts';
import type { Sandbox } from '../../proto/gen/containerd/types/sandbox.ts';
import { untilAborted } from '../distribution/turns.ts';
import type { Namespace } from '../identifiers.ts';
import { architecture } from '../platform.ts';
import { KILLED } from '../runtime/exit.ts';
import { NOT_READY, READY, type SandboxController, type SandboxKey } from '../sandbox/controller.ts';
import { timestampNow } from '../timestamp.ts';
import type { Cri } from './cri.ts';
import { type Pod, isListed, timestampOf } from './pod.ts';
import { podSandboxes } from './pod-metadata.ts';
import { KUBERNETES } from './registry.ts';
import { taskOf } from './remains.ts';
import { infoOf, removeSandbox, stopSandbox } from './sandbox.ts';

export class PodController implements SandboxController {
  readonly #cri: Cri;

  constructor(cri: Cri) {
    this.#cri = cri;
  }

  /** As the store of sandboxes has them. */
  list(namespace: Namespace): Sandbox[] {
    return namespace === KUBERNETES ? podSandboxes(this.#cri) : [];
  }

  has(key: SandboxKey): boolean {
    return this.#find(key) !== undefined;
  }

  /** As kubelet removes a pod, with all that is in it. @throws RpcError FailedPrecondition for one that runs */
  async remove(key: SandboxKey): Promise<void> {
    const { id, state } = this.#demand(key);
    if (state?.$case === 'ready')
      throw failedPrecondition(`pod ${id} runs: it has to be stopped first: failed precondition`);
    await removeSandbox(this.#cri, id);
  }

  async create(): Promise<void> {
    throw unimplemented('pods are made by RunPodSandbox of runtime.v1.RuntimeService');
  }

  async start(key: SandboxKey): Promise<never> {
    const { id } = this.#demand(key);
    throw failedPrecondition(`pod ${id} has been started: failed precondition`);
  }

  async platform(key: SandboxKey) {
    this.#demand(key);
    return { os: process.platform, architecture, variant: '', osVersion: '' };
  }

  async stop(key: SandboxKey): Promise<void> {
    const pod = this.#find(key);
    if (pod !== undefined) await stopSandbox(this.#cri, pod.id);
  }

  async wait(key: SandboxKey, signal: AbortSignal) {
    const { id } = this.#demand(key);
    const task = taskOf(this.#cri, id);
    try {
      const exit = await task?.wait('', signal);
      if (exit !== undefined) return { exitStatus: exit.status, exitedAt: exit.exitedAt };
    } catch (error) {
      if (!isCode(error, Code.NotFound)) throw error;
    }
    await this.#stopped(id, signal);
    // What holds a pod does nothing but wait to be killed.
    return { exitStatus: KILLED, exitedAt: endOf(this.#cri.pods.find(id)) ?? timestampNow() };
  }

  async status(key: SandboxKey, verbose: boolean) {
    const pod = this.#find(key);
    if (pod === undefined) return { exitedAt: timestampNow() };
    const isReady = pod.state?.$case === 'ready';
    const info: Record<string, string> = verbose ? { info: JSON.stringify(infoOf(this.#cri, pod)) } : {};
    return {
      pid: pod.state?.$case === 'ready' ? pod.state.value.pid : 0,
      state: isReady ? READY : NOT_READY,
      createdAt: timestampOf(pod.createdAt),
      exitedAt: endOf(pod),
      info,
    };
  }

  /** The pod is stopped and stays on record, for who has made it to remove. */
  async shutdown(key: SandboxKey): Promise<void> {
    this.#demand(key);
    await this.stop(key);
  }

  async metrics(key: SandboxKey, signal: AbortSignal) {
    const { id } = this.#demand(key);
    const data = await taskOf(this.#cri, id)?.stats(signal);
    return data && { timestamp: timestampNow(), id, data };
  }

  async update(key: SandboxKey): Promise<void> {
    this.#demand(key);
  }

  #find({ namespace, id }: SandboxKey): Pod | undefined {
    if (namespace !== KUBERNETES) return undefined;
    return this.#cri.pods.list().find((pod) => pod.id === id && isListed(pod));
  }

  #demand(key: SandboxKey): Pod {
    const pod = this.#find(key);
    if (pod === undefined) throw notFound(`sandbox ${JSON.stringify(key.id.slice(0, 160))}: not found`);
    return pod;
  }

  async #stopped(id: string, signal: AbortSignal): Promise<void> {
    const { pods } = this.#cri;
    if (pods.find(id)?.state?.$case !== 'ready') return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const unwatch = pods.watch((now, before) => {
      if (before?.id === id && now?.state?.$case !== 'ready') resolve();
    });
    await untilAborted(promise, signal).finally(unwatch);
  }
}

function endOf(pod: Pod | undefined) {
  switch (pod?.state?.$case) {
    case 'ended':
    case 'stopped':
    case 'removing':
      return timestampOf(pod.state.value.at);
    case 'making':
    case 'ready':
    case undefined:
  }
  return undefined;
}
