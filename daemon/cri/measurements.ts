/** Measures pods and containers: their cgroups by their shims, the files they have written, and the interfaces of their networks. */
import type { FilesystemUsage } from '../../proto/gen/runtime/v1/api.ts';
import { Code, isCode, messageOf } from '../../ttrpc/errors.ts';
import type { ContainerId } from '../identifiers.ts';
import type { Cri } from './cri.ts';
import { type InterfaceUsage, networkUsage } from './network-usage.ts';
import type { Pod, PodContainer } from './pod.ts';
import { podUsage } from './pod-cgroup.ts';
import { now } from './pod-life.ts';
import { Rates } from './rates.ts';
import { KUBERNETES } from './registry.ts';
import { taskOf } from './remains.ts';
import { type CgroupUsage, sumOf, usageOf } from './usage.ts';

/** Milliseconds that one shim may take. */
const SHIM_TIMEOUT_MS = 2000;
/** A tree has to be walked for it, and kubelet asks every few seconds. */
const LAYER_LIFE_MS = 10_000;

export interface Measured {
  readonly record: PodContainer;
  /** Undefined when it does not run, or its shim does not answer. */
  readonly usage: CgroupUsage | undefined;
  /** Billionths of a processor that it uses now. */
  readonly nanoCores: bigint;
  /** What it has written; undefined when its files have gone. */
  readonly layer: FilesystemUsage | undefined;
}

export interface MeasuredInPod extends Measured {
  /** Its processes; undefined when its shim does not name them in time. */
  readonly pids: readonly number[] | undefined;
}

export interface MeasuredPod {
  readonly record: Pod;
  readonly usage: CgroupUsage | undefined;
  readonly nanoCores: bigint;
  readonly containers: readonly MeasuredInPod[];
  /** The one that pods are reached by is the first. Empty in the host's network. */
  readonly interfaces: readonly InterfaceUsage[];
  readonly processes: bigint;
}

interface Layer {
  readonly usage: FilesystemUsage;
  readonly until: number;
}

export class Measurements {
  readonly #cri: Cri;
  readonly #rates = new Rates();
  readonly #layers = new Map<string, Layer>();

  constructor(cri: Cri) {
    this.#cri = cri;
    const forget = (id: string): void => {
      this.#rates.forget(id);
      this.#layers.delete(id);
    };
    cri.pods.watch((pod, before) => {
      if (pod === undefined) forget(before!.id);
    });
    cri.containers.watch((container, before) => {
      if (container === undefined) forget(before!.id);
    });
  }

  async container(record: PodContainer, signal: AbortSignal): Promise<Measured> {
    const isRunning = record.state?.$case === 'running';
    const [usage, layer] = await Promise.all([
      isRunning ? this.#usage(record.id, signal) : undefined,
      this.#layer(record.id, signal),
    ]);
    return { record, usage, nanoCores: this.#rate(record.id, usage), layer };
  }

  async pod(record: Pod, signal: AbortSignal): Promise<MeasuredPod> {
    const running = this.#cri.containersOf(record.id).filter(({ state }) => state?.$case === 'running');
    const [own, ownPids, containers] = await Promise.all([
      this.#usage(record.id, signal),
      this.#pids(record.id, signal),
      Promise.all(running.map((each) => this.#inPod(each, signal))),
    ]);
    const processes = [ownPids, ...containers.map(({ pids }) => pids)].reduce(
      (sum, pids) => sum + BigInt(pids?.length ?? 0),
      0n,
    );
    const usage = this.#podUsage(record) ?? sumOf([own, ...containers.map((each) => each.usage)]);
    const nanoCores = this.#rate(record.id, usage);
    return { record, usage, nanoCores, containers, interfaces: interfacesOf(record), processes };
  }

  async #inPod(record: PodContainer, signal: AbortSignal): Promise<MeasuredInPod> {
    const [measured, pids] = await Promise.all([
      this.container(record, signal),
      this.#pids(record.id, signal),
    ]);
    return { ...measured, pids };
  }

  #podUsage({ config }: Pod): CgroupUsage | undefined {
    return podUsage(config?.linux?.cgroupParent ?? '', this.#cri.settings.systemd_cgroup);
  }

  #rate(id: string, usage: CgroupUsage | undefined): bigint {
    return usage === undefined ? 0n : this.#rates.of(id, usage.cpu.total);
  }

  /** What does not answer in time is left out: one stuck shim must not cost kubelet all its other figures. */
  async #usage(id: string, signal: AbortSignal): Promise<CgroupUsage | undefined> {
    const limited = AbortSignal.any([signal, AbortSignal.timeout(SHIM_TIMEOUT_MS)]);
    try {
      return usageOf(await taskOf(this.#cri, id)?.stats(limited));
    } catch (error) {
      signal.throwIfAborted();
      if (!isCode(error, Code.NotFound))
        this.#cri.log.debug({ id, error: messageOf(error) }, 'a container of a pod cannot be measured');
      return undefined;
    }
  }

  async #pids(id: string, signal: AbortSignal): Promise<number[] | undefined> {
    const limited = AbortSignal.any([signal, AbortSignal.timeout(SHIM_TIMEOUT_MS)]);
    try {
      return (await taskOf(this.#cri, id)?.pids(limited))?.map(({ pid }) => pid);
    } catch (error) {
      signal.throwIfAborted();
      this.#cri.log.debug({ id, error: messageOf(error) }, 'the processes of a container cannot be listed');
      return undefined;
    }
  }

  async #layer(id: string, signal: AbortSignal): Promise<FilesystemUsage | undefined> {
    const known = this.#layers.get(id);
    if (known !== undefined && known.until > performance.now()) return known.usage;
    const { metadata, distribution } = this.#cri;
    try {
      const { snapshotter, snapshotKey } = metadata.containers.get(KUBERNETES, id as ContainerId);
      const { snapshotters } = distribution;
      const { size, inodes } = await snapshotters.get(snapshotter).usage(KUBERNETES, snapshotKey, signal);
      const usage: FilesystemUsage = {
        timestamp: now(),
        fsId: { mountpoint: snapshotters.folder(snapshotter) },
        usedBytes: { value: size },
        inodesUsed: { value: inodes },
      };
      this.#layers.set(id, { usage, until: performance.now() + LAYER_LIFE_MS });
      return usage;
    } catch (error) {
      // It is being removed.
      if (isCode(error, Code.NotFound) || isCode(error, Code.InvalidArgument)) return undefined;
      throw error;
    }
  }
}

function interfacesOf({ netns }: Pod): InterfaceUsage[] {
  if (netns === '') return [];
  // Kernels put tunnels of their own before it.
  return networkUsage(netns).toSorted((a, b) => Number(b.name === 'eth0') - Number(a.name === 'eth0'));
}
