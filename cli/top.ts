import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { PATIENCE_MS } from './attachment.ts';
import { parseDuration } from './duration.ts';
import { rawJson } from './json.ts';
import { type Counters, countersOf, type Usage, usageOf } from './sample.ts';
import { Screen } from './screen.ts';
import { type Session, withClient } from './session.ts';
import { print } from './table.ts';
import { screenLines, type Sort, SORTS, sorted, tableLines } from './top-table.ts';

interface TopFlags {
  readonly once?: boolean;
  readonly json?: boolean;
  readonly interval: number;
  readonly sort: Sort;
}

const SHORTEST_INTERVAL_MS = 100;

export function addTop(program: Command): void {
  program
    .command('top')
    .summary('watch what containers use')
    .description(
      'Watch what the containers of the namespace use: processor (100 % is one), memory without what the kernel can drop, device\n' +
        'input and output, processes. q ends it; c, m, i, p and n sort by a column. Not on a terminal, one sample is printed.',
    )
    .argument('[container...]', 'only these')
    .option('--once', 'print one sample and end')
    .option('--json', 'print JSON, a line for each sample; with --once a single one')
    .option('-i, --interval <duration>', 'time between two samples', parseInterval, 2000)
    .addOption(new Option('-s, --sort <column>', 'what to sort by').choices(SORTS).default('cpu'))
    .action(top);
}

function parseInterval(text: string): number {
  const interval = parseDuration(text);
  if (interval < SHORTEST_INTERVAL_MS) throw new InvalidArgumentError('Give 100ms or more.');
  return interval;
}

async function top(ids: string[], flags: TopFlags, command: Command): Promise<void> {
  await withClient(command, async (session) => {
    const sampler = new Sampler(session, ids);
    const isLive = flags.once !== true && process.stdout.isTTY;
    if (flags.json === true) return printJson(sampler, flags);
    if (isLive) return watch(session, sampler, flags);
    await sampler.first(flags.interval);
    print(tableLines(sorted(await sampler.next(), flags.sort), Infinity));
  });
}

/** Readings of the chosen containers, one after the other. */
class Sampler {
  readonly #session: Session;
  readonly #filters: readonly string[];
  #before = new Map<string, Counters>();

  constructor(session: Session, ids: readonly string[]) {
    this.#session = session;
    this.#filters = ids.map((id) => `id==${JSON.stringify(id)}`);
  }

  async next(signal = this.#session.call.signal): Promise<Usage[]> {
    const { client, call } = this.#session;
    const readings = await client.metrics(this.#filters, { ...call, signal, patience: PATIENCE_MS });
    const counters = new Map(readings.map((reading) => [reading.id, countersOf(reading)]));
    const usages = Array.from(counters.values(), (now) => usageOf(now, this.#before.get(now.id)));
    this.#before = counters;
    return usages;
  }

  /** Reads once, and waits a little, so that the next reading has something to be compared with. */
  async first(interval: number): Promise<void> {
    await this.next();
    await sleep(Math.min(interval, 1000), undefined, { signal: this.#session.call.signal });
  }
}

async function printJson(sampler: Sampler, { once: single, interval, sort }: TopFlags): Promise<void> {
  const { stdout } = process;
  await sampler.first(interval);
  for (;;) {
    const text = `${JSON.stringify(sorted(await sampler.next(), sort).map(asJson))}\n`;
    if (!stdout.write(text)) await once(stdout, 'drain');
    if (single === true || stdout.writableEnded) return;
    await sleep(interval);
  }
}

function asJson({ at, ...usage }: Usage): object {
  const numbers = Object.entries(usage).map(([name, value]) => [
    name,
    typeof value === 'bigint' ? rawJson(String(value)) : (value ?? null),
  ]);
  return { timestamp: new Date(at).toISOString(), ...Object.fromEntries(numbers) };
}

/** Draws every sample, and at once when the terminal or the order changes, until a key or a signal ends it. */
async function watch(session: Session, sampler: Sampler, flags: TopFlags): Promise<void> {
  const { stdin, stdout } = process;
  const ended = new AbortController();
  const stop = () => ended.abort();
  const signal = AbortSignal.any([ended.signal, session.call.signal]);
  let { sort } = flags;
  let usages: Usage[] = [];
  using screen = new Screen(stdout);
  const draw = () => {
    const time = new Date().toTimeString().slice(0, 8);
    const title = `moor top  ${time}  namespace ${session.client.namespace}: ${usages.length} containers, by ${sort}`;
    screen.draw(screenLines(sorted(usages, sort), title, screen.size));
  };
  const resized = () => {
    screen.forget();
    draw();
  };
  const typed = (keys: Buffer) => {
    for (const key of keys.toString()) {
      if (key === 'q' || key === '\x03') stop();
      sort = SORTS.find((name) => name.startsWith(key)) ?? sort;
    }
    draw();
  };
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  for (const name of signals) process.on(name, stop);
  stdout.on('resize', resized);
  if (stdin.isTTY) stdin.setRawMode(true).on('data', typed);
  try {
    // The first of all has no rates yet; the second comes soon.
    for (let pause = Math.min(flags.interval, 1000); ; pause = flags.interval) {
      usages = await sampler.next(signal);
      draw();
      await sleep(pause, undefined, { signal });
    }
  } catch (error) {
    if (!ended.signal.aborted) throw error;
  } finally {
    stdout.off('resize', resized);
    for (const name of signals) process.off(name, stop);
    if (stdin.isTTY) stdin.setRawMode(false).off('data', typed);
    stdin.destroy();
  }
}
