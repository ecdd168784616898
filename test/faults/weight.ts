/** What a process holds of the machine. */
import { readFileSync, readdirSync } from 'node:fs';
import { descriptors, privateMemory } from '../harness/processes.ts';

const MIB = 1 << 20;

export interface Weight {
  /** MiB that are in memory, files' pages among them. */
  readonly resident: number;
  /** MiB that nobody else holds. */
  readonly private: number;
  readonly descriptors: number;
  readonly threads: number;
  /** MiB of objects in the JavaScript heap, those that have yet to be collected among them; of a daemon with an address for metrics. */
  readonly heap?: number;
}

export function weigh(pid: number): Weight {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return {
    resident: mebibytes(Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024),
    private: mebibytes(privateMemory(pid)),
    descriptors: descriptors(pid).length,
    threads: readdirSync(`/proc/${pid}/task`).length,
  };
}

/** @param metrics where the daemon serves them */
export async function weighDaemon(pid: number, metrics: string): Promise<Weight> {
  const text = await (await fetch(`http://${metrics}/v1/metrics`)).text();
  const heap = Number(/^nodejs_heap_size_used_bytes (\S+)$/m.exec(text)?.[1]);
  return { ...weigh(pid), heap: mebibytes(heap) };
}

function mebibytes(bytes: number): number {
  return Math.round((bytes / MIB) * 10) / 10;
}
