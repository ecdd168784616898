/** This process, under the names that Prometheus' client libraries agree on. */
import { readFileSync, readdirSync } from 'node:fs';
import type { Family } from './exposition.ts';

const PAGE_BYTES = 4096;

/** When this process has started, in seconds since 1970. */
const START = performance.timeOrigin / 1000;

export function processFamilies(): Family[] {
  const { user, system } = process.cpuUsage();
  const { rss, heapUsed, heapTotal } = process.memoryUsage();
  return [
    one(
      'process_cpu_seconds_total',
      'Total user and system CPU time spent in seconds.',
      (user + system) / 1e6,
      'counter',
    ),
    one('process_open_fds', 'Number of open file descriptors.', readdirSync('/proc/self/fd').length),
    one('process_max_fds', 'Maximum number of open file descriptors.', maxDescriptors()),
    one('process_resident_memory_bytes', 'Resident memory size in bytes.', rss),
    one('process_virtual_memory_bytes', 'Virtual memory size in bytes.', virtualBytes()),
    one('process_start_time_seconds', 'Start time of the process since unix epoch in seconds.', START),
    one('nodejs_heap_size_used_bytes', 'Bytes of the heap that are in use.', heapUsed),
    one('nodejs_heap_size_total_bytes', 'Bytes of the heap.', heapTotal),
  ];
}

/** A family of one sample without labels. */
export function one(
  name: string,
  help: string,
  value: number | bigint,
  type: Family['type'] = 'gauge',
): Family {
  return { name, help, type, samples: [{ value }] };
}

function maxDescriptors(): number {
  const limit = /^Max open files\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'latin1'))?.[1];
  return limit === undefined || limit === 'unlimited' ? Infinity : Number(limit);
}

function virtualBytes(): number {
  return Number(readFileSync('/proc/self/statm', 'latin1').split(' ')[0]) * PAGE_BYTES;
}
