/**
 * Moor and Debian's containerd side by side, in one run: the same ctr, the same runc, the same root file system and images;
 * sample by sample in turn, so that both see the same machine. See --help.
 */
import { join } from 'node:path';
import { Command, Option } from 'commander';
import type { Peer } from '../test/harness/daemon.ts';
import { commandLine } from './command-line.ts';
import { containers } from './containers.ts';
import { crowd } from './crowd.ts';
import { machine, versions } from './host.ts';
import { Gallery, images } from './images.ts';
import { keep } from './kept.ts';
import { limits } from './limits.ts';
import type { Measure } from './measure.ts';
import { pods } from './pods.ts';
import { table, type Report, type Result, type Setting } from './report.ts';
import { Side } from './side.ts';
import { summarize, summarizeRatios } from './statistics.ts';
import { streams } from './streams.ts';

interface Flags {
  readonly quick: boolean;
  readonly self: boolean;
  readonly only?: string[];
  readonly update: boolean;
  readonly json: boolean;
  readonly write: boolean;
}

/** Where the results of full runs are kept. */
const resultsDirectory = join(import.meta.dirname, '../docs/bench');

await using gallery = new Gallery();
const measures: readonly Measure[] = [
  ...containers,
  ...crowd,
  ...streams,
  ...images(gallery),
  commandLine,
  pods,
];
const names = measures.map(({ name }) => name);
const flags = new Command('bench')
  .description('Measures Moor and Debian’s containerd side by side with the same ctr.')
  .option('--quick', 'few rounds, for a rough look', false)
  .option('--self', 'containerd against itself: what the machine’s noise makes of equals', false)
  .addOption(new Option('--only <name...>', 'only these measures').choices(names))
  .addOption(
    new Option('--update', 'with --only: replace just these rows in docs/bench')
      .default(false)
      .conflicts('quick'),
  )
  .option('--json', 'print the report as JSON', false)
  .option('--no-write', 'leave docs/bench as it is (so do --quick, and --only without --update)')
  .parse()
  .opts<Flags>();

/** Samples of both sides in turn; who goes first alternates. */
async function compare(measure: Measure, ours: Side, theirs: Side, measured: Setting): Promise<Result[]> {
  const samples = new Map<Side, (readonly number[])[]>([
    [ours, []],
    [theirs, []],
  ]);
  const rounds = flags.quick ? measure.rounds.quick : measure.rounds.full;
  for (const side of samples.keys()) await measure.prepare?.(side);
  for (let round = 0; round < rounds; round += 1)
    for (const side of round % 2 === 0 ? [ours, theirs] : [theirs, ours])
      samples.get(side)!.push(await measure.sample(side, round));
  for (const side of samples.keys()) await measure.tidy?.(side);
  return measure.figures.map((figure, index) => {
    const [mine = [], other = []] = [...samples.values()].map((rows) => rows.map((row) => row[index]!));
    return {
      topic: measure.topic,
      figure,
      ...(flags.self ? {} : { limit: limits[figure.name] }),
      measured,
      ours: summarize(mine),
      theirs: summarize(other),
      ratio: summarizeRatios(mine, other),
    };
  });
}

async function bench(): Promise<void> {
  const began = performance.now();
  const peer: Peer = flags.self ? 'containerd' : 'moord';
  await using ours = await Side.start(flags.self ? 'containerd (a)' : 'Moor', peer, 'a');
  await using theirs = await Side.start(flags.self ? 'containerd (b)' : 'containerd', 'containerd', 'b');

  const setting: Setting = {
    date: new Date().toISOString().slice(0, 10),
    machine: machine(),
    versions: await versions([ours.daemon, theirs.daemon]),
  };
  const chosen = measures.filter(({ name }) => flags.only?.includes(name) ?? true);
  const results: Result[] = [];
  for (const measure of chosen) {
    const minutes = ((performance.now() - began) / 60_000).toFixed(1);
    process.stderr.write(`${minutes} min  ${measure.name}: ${measure.figures[0]?.what} …\n`);
    results.push(...(await compare(measure, ours, theirs, setting)));
  }
  const report: Report = { labels: { ours: ours.label, theirs: theirs.label }, results };
  console.log(flags.json ? JSON.stringify(report) : table(report));
  process.stderr.write(`${((performance.now() - began) / 60_000).toFixed(1)} min\n`);
  const isKept = flags.only === undefined ? !flags.quick : flags.update;
  if (!isKept || !flags.write) return;
  // What the noise makes of equals stands beside what it has made of the results.
  const order = measures.flatMap(({ figures }) => figures.map(({ name }) => name));
  console.log(`written: ${keep(resultsDirectory, flags.self ? 'noise' : 'results', report, order)}`);
}

await bench();
