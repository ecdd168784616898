/**
 * What a pod as a whole uses, by the cgroup that kubelet makes for it and puts all of its containers in: what has ended there counts as
 * well, and limits of the pod are known there alone.
 */
import { existsSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { Metrics as MetricsV1 } from '../../proto/gen/cgroups/v1.ts';
import { Metrics as MetricsV2, type PSIStats } from '../../proto/gen/cgroups/v2.ts';
import { type CgroupUsage, fromV1, fromV2 } from './usage.ts';

const ROOT = '/sys/fs/cgroup';
/** Nanoseconds of a tick of cpuacct.stat: USER_HZ is 100 on every architecture of Linux that Node runs on. */
const TICK_NS = 10_000_000n;

/**
 * @param parent as the CRI has it: the path of a cgroup, or for systemd the name of a slice
 * @param root where cgroups are mounted
 * @returns undefined where the pod has no cgroup of its own
 */
export function podUsage(parent: string, isSystemd: boolean, root = ROOT): CgroupUsage | undefined {
  if (parent === '' || parent === '/') return undefined;
  const path = isSystemd ? sliceFolder(basename(parent)) : parent;
  if (existsSync(join(root, 'cgroup.controllers'))) return ofUnified(join(root, path));
  return ofLegacy((controller) => join(root, controller, path));
}

/** A slice is below those whose names it begins with, up to each hyphen (systemd.slice(5)). */
export function sliceFolder(slice: string): string {
  const words = slice.replace(/\.slice$/, '').split('-');
  const above = words.map((_, index) => `${words.slice(0, index + 1).join('-')}.slice`);
  return join('/', ...above);
}

function ofUnified(folder: string): CgroupUsage | undefined {
  if (!existsSync(folder)) return undefined;
  const number = (name: string) => toNumber(read(folder, name));
  const cpu = pairs(read(folder, 'cpu.stat'));
  const memory = pairs(read(folder, 'memory.stat'));
  const events = pairs(read(folder, 'memory.events'));
  return fromV2(
    MetricsV2.fromPartial({
      cpu: {
        usageUsec: cpu('usage_usec'),
        userUsec: cpu('user_usec'),
        systemUsec: cpu('system_usec'),
        nrPeriods: cpu('nr_periods'),
        nrThrottled: cpu('nr_throttled'),
        throttledUsec: cpu('throttled_usec'),
        psi: pressure(read(folder, 'cpu.pressure')),
      },
      memory: {
        usage: number('memory.current'),
        usageLimit: number('memory.max'),
        swapUsage: number('memory.swap.current'),
        swapLimit: number('memory.swap.max'),
        anon: memory('anon'),
        file: memory('file'),
        fileMapped: memory('file_mapped'),
        inactiveFile: memory('inactive_file'),
        pgfault: memory('pgfault'),
        pgmajfault: memory('pgmajfault'),
        psi: pressure(read(folder, 'memory.pressure')),
      },
      memoryEvents: { max: events('max'), oomKill: events('oom_kill') },
      pids: { current: number('pids.current') },
      io: { psi: pressure(read(folder, 'io.pressure')) },
    }),
  );
}

function ofLegacy(folderOf: (controller: string) => string): CgroupUsage | undefined {
  const memoryFolder = folderOf('memory');
  if (!existsSync(memoryFolder) && !existsSync(folderOf('cpuacct'))) return undefined;
  const number = (controller: string, name: string) => toNumber(read(folderOf(controller), name));
  const ticks = pairs(read(folderOf('cpuacct'), 'cpuacct.stat'));
  const throttling = pairs(read(folderOf('cpu'), 'cpu.stat'));
  const stat = pairs(read(memoryFolder, 'memory.stat'));
  const entry = (prefix: string) => ({
    usage: number('memory', `${prefix}.usage_in_bytes`),
    limit: number('memory', `${prefix}.limit_in_bytes`),
    max: number('memory', `${prefix}.max_usage_in_bytes`),
    failcnt: number('memory', `${prefix}.failcnt`),
  });
  const hasSwap = read(memoryFolder, 'memory.memsw.usage_in_bytes') !== undefined;
  return fromV1(
    MetricsV1.fromPartial({
      cpu: {
        usage: {
          total: number('cpuacct', 'cpuacct.usage'),
          user: ticks('user') * TICK_NS,
          kernel: ticks('system') * TICK_NS,
        },
        throttling: {
          periods: throttling('nr_periods'),
          throttledPeriods: throttling('nr_throttled'),
          throttledTime: throttling('throttled_time'),
        },
      },
      memory: {
        usage: entry('memory'),
        swap: hasSwap ? entry('memory.memsw') : undefined,
        totalInactiveFile: stat('total_inactive_file'),
        totalRss: stat('total_rss'),
        totalCache: stat('total_cache'),
        totalMappedFile: stat('total_mapped_file'),
        totalPgFault: stat('total_pgfault'),
        totalPgMajFault: stat('total_pgmajfault'),
      },
      memoryOomControl: { oomKill: pairs(read(memoryFolder, 'memory.oom_control'))('oom_kill') },
      pids: { current: number('pids', 'pids.current') },
    }),
  );
}

/** Undefined for what this kernel or this cgroup does not have, or does not have any more. */
function read(folder: string, name: string): string | undefined {
  try {
    return readFileSync(join(folder, name), 'latin1');
  } catch (error) {
    if (['ENOENT', 'ENODEV', 'EOPNOTSUPP'].includes((error as NodeJS.ErrnoException).code ?? ''))
      return undefined;
    throw error;
  }
}

/** `max` is no limit, which is said by no number as well. */
function toNumber(text: string | undefined): bigint {
  const [digits] = /^\d+/.exec(text ?? '') ?? [];
  return digits === undefined ? 0n : BigInt(digits);
}

/** Lines of a name and a number. */
function pairs(text: string | undefined): (name: string) => bigint {
  const known = fields((text ?? '').split('\n'), ' ');
  return (name) => toNumber(known.get(name));
}

function fields(texts: readonly string[], separator: string): Map<string, string> {
  return new Map(
    texts.map((text) => {
      const [name = '', value = ''] = text.split(separator, 2);
      return [name, value];
    }),
  );
}

/** `some avg10=0.12 avg60=0.00 avg300=0.00 total=5` (kernel: Documentation/accounting/psi.rst) */
function pressure(text: string | undefined): PSIStats | undefined {
  if (text === undefined) return undefined;
  const of = (kind: string) => {
    const line = text.split('\n').find((each) => each.startsWith(`${kind} `));
    if (line === undefined) return undefined;
    const values = fields(line.split(' '), '=');
    const average = (name: string) => Number(values.get(name) ?? 0);
    return {
      avg10: average('avg10'),
      avg60: average('avg60'),
      avg300: average('avg300'),
      total: toNumber(values.get('total')),
    };
  };
  return { some: of('some'), full: of('full') };
}
