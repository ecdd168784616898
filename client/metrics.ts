import type { Metrics as MetricsV1 } from '../proto/gen/cgroups/v1.ts';
import type { Metrics as MetricsV2 } from '../proto/gen/cgroups/v2.ts';
import type { Metric } from '../proto/gen/containerd/types/metrics.ts';
import { internal } from '../ttrpc/errors.ts';
import type { CallOptions } from '../ttrpc/service.ts';
import { typeNameOf } from './any.ts';
import { patiently, type PatientOptions, type Tasks } from './process.ts';
import { dateOf } from './timestamp.ts';

interface Reading {
  readonly id: string;
  readonly timestamp: Date | undefined;
  /** As it came, with the timestamp in nanoseconds. */
  readonly metric: Metric;
}

/** One reading of a container's counters, from whichever version of cgroups its host has. */
export type Metrics =
  | (Reading & { readonly version: 1; readonly cgroup: MetricsV1 })
  | (Reading & { readonly version: 2; readonly cgroup: MetricsV2 });

/**
 * One reading of each container that the filters select, or of all.
 *
 * @throws RpcError InvalidArgument for a filter that cannot be read
 */
export async function readMetrics(
  tasks: Tasks,
  filters: readonly string[],
  options: PatientOptions,
): Promise<Metrics[]> {
  const read = (call: CallOptions) => tasks.metrics({ filters: [...filters] }, call);
  const { metrics } = await patiently(options, read);
  return await Promise.all(metrics.map(metricsOf));
}

/** @throws RpcError Internal for counters of a kind this client does not know */
export async function metricsOf(metric: Metric): Promise<Metrics> {
  const { id, timestamp, data } = metric;
  const reading = { id, timestamp: dateOf(timestamp), metric };
  const type = data === undefined ? '' : typeNameOf(data);
  const value = data?.value ?? Buffer.alloc(0);
  // The messages are large and few programs want them: they are loaded with the first reading.
  if (type === 'io.containerd.cgroups.v1.Metrics') {
    const { Metrics } = await import('../proto/gen/cgroups/v1.ts');
    return { ...reading, version: 1, cgroup: Metrics.decode(value) };
  }
  if (type === 'io.containerd.cgroups.v2.Metrics') {
    const { Metrics } = await import('../proto/gen/cgroups/v2.ts');
    return { ...reading, version: 2, cgroup: Metrics.decode(value) };
  }
  throw internal(`metrics of ${id} have the unknown type ${type}`);
}
