/** The measures of all containers, in all namespaces. */
import type { Logger } from 'pino';
import { Metrics as MetricsV1 } from '../../proto/gen/cgroups/v1.ts';
import { Metrics as MetricsV2 } from '../../proto/gen/cgroups/v2.ts';
import type { Any } from '../../proto/gen/google/protobuf/any.ts';
import { Code, isCode, messageOf } from '../../ttrpc/errors.ts';
import { typeNameOf } from '../distribution/any.ts';
import { measuresV1 } from './cgroup-v1.ts';
import { measuresV2 } from './cgroup-v2.ts';
import type { Family, Labels, Sample } from './exposition.ts';
import type { Measure } from './measure.ts';

/** A container that may be measured. */
export interface Measurable {
  readonly namespace: string;
  readonly id: string;
  /** The runtime's name. */
  readonly runtime: string;
  /** Undefined when there is nothing left to measure. */
  stats(signal: AbortSignal): Promise<Any | undefined>;
}

/** Milliseconds that one shim may take. */
const SHIM_TIMEOUT_MS = 2000;
/** Shims that are asked at once: hundreds that wake up together leave no processor for anybody else. */
const AT_ONCE = 8;
/** Milliseconds after which a shim that has not answered is waited for beside the next, so that stuck ones hold up nobody. */
const TURN_MS = 100;

interface Measured<M> {
  readonly labels: Labels;
  readonly metrics: M;
}

/**
 * Asks every shim once, a few at a time. One that does not answer in time is left out, and counted.
 *
 * @returns the families of both versions of cgroups, made as they are read, and how many shims failed
 */
export async function measureContainers(
  containers: readonly Measurable[],
  log: Logger,
): Promise<{ families: Iterable<Family>; failures: number }> {
  const v1: Measured<MetricsV1>[] = [];
  const v2: Measured<MetricsV2>[] = [];
  let failures = 0;
  const measure = async (container: Measurable) => {
    const { namespace, id, runtime } = container;
    const labels = { container_id: id, namespace, runtime };
    try {
      const stats = await container.stats(AbortSignal.timeout(SHIM_TIMEOUT_MS));
      if (stats === undefined) return;
      const type = typeNameOf(stats);
      if (type === 'io.containerd.cgroups.v1.Metrics')
        v1.push({ labels, metrics: MetricsV1.decode(stats.value) });
      else if (type === 'io.containerd.cgroups.v2.Metrics')
        v2.push({ labels, metrics: MetricsV2.decode(stats.value) });
      else throw new Error(`metrics of the unknown type ${type}`);
    } catch (error) {
      // Before its start and after its end a container has no cgroup.
      if (isCode(error, Code.NotFound)) return;
      failures += 1;
      log.debug({ namespace, id, error: messageOf(error) }, 'a container cannot be measured');
    }
  };
  await inTurns(containers, measure);
  return { families: chain(familiesOf(measuresV1, v1), familiesOf(measuresV2, v2)), failures };
}

/** Does something for each, a few at a time. What takes long goes on beside the others. Resolves when all is done. */
async function inTurns<T>(items: readonly T[], act: (item: T) => Promise<void>): Promise<void> {
  const left = items.values();
  const begun: Promise<void>[] = [];
  const line = async () => {
    for (const item of left) {
      const done = act(item);
      begun.push(done);
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, TURN_MS);
      });
      await Promise.race([done, late]);
      clearTimeout(timer);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, line));
  await Promise.all(begun);
}

function* chain<T>(...parts: Iterable<T>[]): Generator<T, void, undefined> {
  for (const part of parts) yield* part;
}

function* familiesOf<M>(
  measures: readonly Measure<M>[],
  measured: readonly Measured<M>[],
): Generator<Family, void, undefined> {
  for (const { name, help, read } of measures) {
    const samples: Sample[] = [];
    for (const { labels, metrics } of measured) {
      for (const [value, more] of read(metrics)) {
        samples.push({ value, labels: more === undefined ? labels : { ...labels, ...more } });
      }
    }
    yield { name: `container_${name}`, help, type: 'gauge', samples };
  }
}
