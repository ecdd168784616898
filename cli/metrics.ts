import type { Command } from 'commander';
import type { Metrics } from '../client/client.ts';
import { goMessage, goTime } from './json.ts';
import { countersOf } from './sample.ts';
import { withClient } from './session.ts';
import { type FormatOptions, formatOption, print, printJson, printListing, tabulate } from './table.ts';
import { bytes } from './top-table.ts';

export function addMetrics(program: Command): void {
  program
    .command('metrics')
    .summary('read the counters of containers')
    .description(
      'Read the counters of one container’s cgroup, as `tasks metrics` does, or what all of the namespace use.',
    )
    .argument('[container]')
    .addOption(formatOption())
    .action(metrics);
}

async function metrics(id: string | undefined, flags: FormatOptions, command: Command): Promise<void> {
  await withClient(command, async ({ client, call }) => {
    if (id === undefined) return printAll(await client.metrics([], call), flags);
    const container = await client.containers.get(id, call);
    const task = await container.task(call);
    await printMetrics(await task.metrics(call), flags);
  });
}

/** A line for each container; JSON has all counters of each. */
async function printAll(readings: readonly Metrics[], flags: FormatOptions): Promise<void> {
  const inOrder = readings.toSorted((a, b) => (a.id < b.id ? -1 : 1));
  const rows = inOrder
    .map(countersOf)
    .map(({ id, cpu, memory, memoryLimit, read, written, pids }) => [
      id,
      `${(Number(cpu) / 1e9).toFixed(3)}s`,
      bytes(Number(memory)),
      memoryLimit === undefined ? '-' : bytes(Number(memoryLimit)),
      bytes(Number(read)),
      bytes(Number(written)),
      String(pids),
    ]);
  const header = ['CONTAINER', 'CPU', 'MEMORY', 'LIMIT', 'READ', 'WRITTEN', 'PIDS'];
  const json = inOrder.map(({ id, metric, version, cgroup }) => ({
    id,
    timestamp: goTime(metric.timestamp),
    version,
    ...goMessage(cgroup),
  }));
  await printListing({ header, rows, json, filled: 'header' }, flags);
}

type Row = readonly [name: string, value: bigint | string | undefined];

/** One reading of a container's counters, the few that people look at; JSON has them all. */
export async function printMetrics(reading: Metrics, flags: FormatOptions): Promise<void> {
  const rows = (reading.version === 1 ? rowsOfV1(reading) : rowsOfV2(reading)).map(([name, value]) => [
    name,
    String(value ?? 0),
  ]);
  if (flags.format === 'json') {
    printJson(goMessage(reading.cgroup));
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
