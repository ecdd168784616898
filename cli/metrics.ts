import type { Metrics } from '../client/client.ts';
import { goMessage, goTime } from './json.ts';
import { type FormatOptions, print, printListing, tabulate } from './table.ts';

type Row = readonly [name: string, value: bigint | string | undefined];

/** One reading of a container's counters, the few that people look at; JSON has them all. */
export async function printMetrics(reading: Metrics, flags: FormatOptions): Promise<void> {
  const rows = (reading.version === 1 ? rowsOfV1(reading) : rowsOfV2(reading)).map(([name, value]) => [
    name,
    String(value ?? 0),
  ]);
  if (flags.format === 'json') {
    console.log(JSON.stringify(goMessage(reading.cgroup), undefined, 2));
  } else if (flags.format === 'table') {
    await printListing({ header: ['METRIC', 'VALUE'], rows, json: undefined }, flags);
  } else {
    const head = [
      ['ID', 'TIMESTAMP', ''],
      [reading.id, goTime(reading.metric.timestamp), ''],
    ];
    print(tabulate([...head, [''], ['METRIC', 'VALUE', ''], ...rows.map((row) => [...row, ''])], [1, 4]));
  }
}

function rowsOfV1({ cgroup: { memory, cpu, pids } }: Metrics & { version: 1 }): Row[] {
  const rows: Row[] = [];
  if (memory !== undefined) {
    rows.push(
      ['memory.usage_in_bytes', memory.usage?.usage],
      ['memory.limit_in_bytes', memory.usage?.limit],
      ['memory.stat.cache', memory.totalCache],
    );
  }
  if (cpu !== undefined) {
    rows.push(
      ['cpuacct.usage', cpu.usage?.total],
      ['cpuacct.usage_percpu', `[${(cpu.usage?.perCpu ?? []).join(' ')}]`],
    );
  }
  if (pids !== undefined) rows.push(['pids.current', pids.current], ['pids.limit', pids.limit]);
  return rows;
}

function rowsOfV2({ cgroup: { memory, cpu, pids } }: Metrics & { version: 2 }): Row[] {
  const rows: Row[] = [];
  if (pids !== undefined) rows.push(['pids.current', pids.current], ['pids.limit', pids.limit]);
  if (cpu !== undefined) {
    rows.push(
      ['cpu.usage_usec', cpu.usageUsec],
      ['cpu.user_usec', cpu.userUsec],
      ['cpu.system_usec', cpu.systemUsec],
      ['cpu.nr_periods', cpu.nrPeriods],
      ['cpu.nr_throttled', cpu.nrThrottled],
      ['cpu.throttled_usec', cpu.throttledUsec],
    );
  }
  if (memory !== undefined) {
    rows.push(
      ['memory.usage', memory.usage],
      ['memory.usage_limit', memory.usageLimit],
      ['memory.swap_usage', memory.swapUsage],
      ['memory.swap_limit', memory.swapLimit],
    );
  }
  return rows;
}
