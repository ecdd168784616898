/** What pods and their containers use. */
import { setTimeout as after } from 'node:timers/promises';
import type { Command } from 'commander';
import { goMessage } from '../json.ts';
import { collect, parseLabels } from '../labels.ts';
import { SHORT_ID } from '../pods.ts';
import { type Session, withClient } from '../session.ts';
import { binarySize } from '../size.ts';
import { printJson, printListing } from '../table.ts';
import { type OutputFlags, addOutputFlags, formatOf } from './selection.ts';

interface StatsFlags extends OutputFlags {
  readonly id?: string;
  readonly pod?: string;
  readonly label?: readonly string[];
  readonly watch?: boolean;
}

/** Billionths of a processor in a hundredth of one. */
const NANOCORES_A_PERCENT = 1e7;
/** Milliseconds from one listing to the next. */
const PACE_MS = 1000;
/** The cursor goes to the upper left, and what is below it (ECMA-48). */
const CLEAR = '\x1b[H\x1b[J';

export function addStats(cri: Command): void {
  const stats = cri
    .command('stats')
    .description('show what containers of pods use')
    .argument('[container]')
    .option('--id <id>', 'one container')
    .option('-p, --pod <pod>', 'those of one pod')
    .option('--label <key=value>', 'those with a label (repeatable)', collect)
    .option('-w, --watch', 'print them each second, until interrupted');
  addOutputFlags(stats).action((id: string | undefined, flags: StatsFlags, command: Command) =>
    withClient(command, (session) => shown(session, containers, { ...flags, id: id ?? flags.id })),
  );
  const statsp = cri
    .command('statsp')
    .description('show what pods use')
    .argument('[pod]')
    .option('--id <id>', 'one pod')
    .option('--label <key=value>', 'those with a label (repeatable)', collect)
    .option('-w, --watch', 'print them each second, until interrupted');
  addOutputFlags(statsp).action((id: string | undefined, flags: StatsFlags, command: Command) =>
    withClient(command, (session) => shown(session, pods, { ...flags, id: id ?? flags.id })),
  );
  cri
    .command('metricsp')
    .description('print the metrics of pods')
    .action((_flags: object, command: Command) =>
      withClient(command, async ({ client, call }) => {
        const { podMetrics } = await client.kubernetes.runtime.listPodSandboxMetrics({}, call);
        printJson({ podMetrics: podMetrics.map(goMessage) });
      }),
    );
  cri
    .command('metricdescs')
    .description('print which metrics there are')
    .action((_flags: object, command: Command) =>
      withClient(command, async ({ client, call }) => {
        const { descriptors } = await client.kubernetes.runtime.listMetricDescriptors({}, call);
        printJson({ descriptors: descriptors.map(goMessage) });
      }),
    );
}

/** Once, or again and again; on a terminal in the same place. */
async function shown(
  session: Session,
  show: (session: Session, flags: StatsFlags) => Promise<void>,
  flags: StatsFlags,
): Promise<void> {
  for (;;) {
    await show(session, flags);
    if (flags.watch !== true) return;
    await after(PACE_MS, undefined, { signal: session.call.signal });
    if (process.stdout.isTTY) process.stdout.write(CLEAR);
  }
}

async function containers({ client, call }: Session, flags: StatsFlags): Promise<void> {
  const { id = '', pod: podSandboxId = '', label = [] } = flags;
  const { runtime } = client.kubernetes;
  // One that does not run has no line in the list; a mistyped one is told apart from it.
  if (id !== '') await runtime.containerStatus({ containerId: id }, call);
  const filter = { id, podSandboxId, labelSelector: parseLabels(label) };
  const { stats } = await runtime.listContainerStats({ filter }, call);
  await printListing(
    {
      header: ['CONTAINER', 'NAME', 'CPU', 'CPU %', 'MEMORY', 'DISK', 'INODES'],
      rows: stats.map(({ attributes, cpu, memory, writableLayer }) => [
        attributes?.id.slice(0, SHORT_ID) ?? '',
        attributes?.metadata?.name ?? '',
        seconds(cpu?.usageCoreNanoSeconds?.value),
        percent(cpu?.usageNanoCores?.value),
        size(memory?.workingSetBytes?.value),
        size(writableLayer?.usedBytes?.value),
        String(writableLayer?.inodesUsed?.value ?? 0n),
      ]),
      json: stats.map(goMessage),
    },
    formatOf(flags),
  );
}

async function pods({ client, call }: Session, flags: StatsFlags): Promise<void> {
  const { id = '', label = [] } = flags;
  const { runtime } = client.kubernetes;
  if (id !== '') await runtime.podSandboxStatus({ podSandboxId: id }, call);
  const filter = { id, labelSelector: parseLabels(label) };
  const { stats } = await runtime.listPodSandboxStats({ filter }, call);
  await printListing(
    {
      header: ['POD', 'NAME', 'NAMESPACE', 'CPU', 'CPU %', 'MEMORY', 'PROCESSES', 'RECEIVED', 'SENT'],
      rows: stats.map(({ attributes, linux }) => [
        attributes?.id.slice(0, SHORT_ID) ?? '',
        attributes?.metadata?.name ?? '',
        attributes?.metadata?.namespace ?? '',
        seconds(linux?.cpu?.usageCoreNanoSeconds?.value),
        percent(linux?.cpu?.usageNanoCores?.value),
        size(linux?.memory?.workingSetBytes?.value),
        String(linux?.process?.processCount?.value ?? 0n),
        size(linux?.network?.defaultInterface?.rxBytes?.value),
        size(linux?.network?.defaultInterface?.txBytes?.value),
      ]),
      json: stats.map(goMessage),
    },
    formatOf(flags),
  );
}

function seconds(nanoseconds = 0n): string {
  return `${(Number(nanoseconds) / 1e9).toFixed(3)}s`;
}

function percent(nanoCores = 0n): string {
  return (Number(nanoCores) / NANOCORES_A_PERCENT).toFixed(2);
}

function size(bytes = 0n): string {
  return binarySize(Number(bytes));
}
