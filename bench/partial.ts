/**
 * Moor and Debian's containerd side by side, in one run: the same ctr, the same runc, the same root file system and images;
 * sample by sample in turn, so that both see the same machine. See --help.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command, Option } from 'commander';
import type { Peer } from '../test/harness/daemon.ts';
import { picture } from './chart.ts';
import { containers } from './containers.ts';
import { crowd } from './crowd.ts';
import { machine, versions } from './host.ts';
import { Gallery, images } from './images.ts';
import type { Measure } from './measure.ts';
import { markdown, table, type Report, type Result } from './report.ts';
import { Side } from './side.ts';
import { summarize, summarizeRatios } from './statistics.ts';
import { streams } from './streams.ts';

interface Flags {
  readonly quick: boolean;
  readonly self: boolean;
  readonly only?: string[];
  readonly json: boolean;
  readonly write: boolean;
}

/** Where the results of full runs are kept. */
const resultsDirectory = join(import.meta.dirname, '../docs/bench');

await using gallery = new Gallery();
const measures: readonly Measure[] = [...containers, ...crowd, ...streams, ...images(gallery)];
const names = measures.map(({ name }) => name);
const flags = new Command('bench')
  .description('Measures Moor and Debian’s containerd side by side with the same ctr.')
  .option('--quick', 'few rounds, for a rough look', false)
  .option('--self', 'containerd against itself: what the machine’s noise makes of equals', false)
  .addOption(new Option('--only <name...>', 'only these measures').choices(names))
  .option('--json', 'print the report as JSON', false)
  .option('--no-write', 'leave docs/bench as it is (--quick and --only do so too)')
  .parse()
  .opts<Flags>();

/** Samples of both sides in turn; who goes first alternates. */
async function compare(measure: Measure, ours: Side, theirs: Side): Promise<Result[]> {
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
      ours: summarize(mine),
      theirs: summarize(other),
      ratio: summarizeRatios(mine, other),
    };
  });
}

function keep(report: Report): void {
  mkdirSync(resultsDirectory, { recursive: true });
  // What the noise makes of equals stands beside what it has made of the results.
  const name = flags.self ? 'noise' : 'results';
  const file = (extension: string) => join(resultsDirectory, `${name}.${extension}`);
  writeFileSync(file('json'), `${JSON.stringify(report, undefined, 1)}\n`);
  writeFileSync(file('md'), markdown(report, `${name}.svg`));
  writeFileSync(file('svg'), picture(report));
  console.log(`written: ${file('md')}`);
}

async function bench(): Promise<void> {
  const began = performance.now();
  const peer: Peer = flags.self ? 'containerd' : 'moord';
  await using ours = await Side.start(flags.self ? 'containerd (a)' : 'Moor', peer, 'a');
  await using theirs = await Side.start(flags.self ? 'containerd (b)' : 'containerd', 'containerd', 'b');

  const chosen = measures.filter(({ name }) => flags.only?.includes(name) ?? true);
  const results: Result[] = [];
  for (const measure of chosen) {
    const minutes = ((performance.now() - began) / 60_000).toFixed(1);
    process.stderr.write(`${minutes} min  ${measure.name}: ${measure.figures[0]?.what} …\n`);
    results.push(...(await compare(measure, ours, theirs)));
  }
  const report: Report = {
    date: new Date().toISOString().slice(0, 10),
    minutes: Math.round((performance.now() - began) / 60_000),
    machine: machine(),
    versions: await versions([ours.daemon, theirs.daemon]),
    labels: { ours: ours.label, theirs: theirs.label },
    results,
  };
  console.log(flags.json ? JSON.stringify(report) : table(report));
  const whole = true;
  if (whole && flags.write) keep(report);
}

await bench();
