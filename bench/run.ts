/**
 * Moor and Debian's containerd side by side, in one run: the same ctr, the same runc, the same root file system; sample by
 * sample in turn, so that both see the same machine. See --help.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command, Option } from 'commander';
import { Daemon, type Peer } from '../test/harness/daemon.ts';
import { machine, versions } from './host.ts';
import { measures, resultsDirectory, warmUp, type Measure, type Side } from './measures.ts';
import { markdown, picture, table, type Report, type Result } from './report.ts';
import { summarize, summarizeRatios } from './statistics.ts';

interface Flags {
  readonly quick: boolean;
  readonly self: boolean;
  readonly only?: string[];
  readonly peer: Peer;
  readonly write: boolean;
}

const names = measures.map(({ name }) => name);
const flags = new Command('bench')
  .description('Measures Moor and Debian’s containerd side by side with the same ctr.')
  .option('--quick', 'few rounds, for a rough look', false)
  .option('--self', 'containerd against itself: what the machine’s noise makes of equals', false)
  .addOption(new Option('--only <name...>', 'only these measures').choices(names))
  .addOption(
    new Option('--peer <kind>', 'what is compared with containerd')
      .choices(['moord', 'containerd'])
      .default('moord'),
  )
  .option('--no-write', 'leave docs/bench as it is (so do --quick, --self and --only)')
  .parse()
  .opts<Flags>();

/** Samples of both sides in turn; who goes first alternates. */
async function compare(measure: Measure, ours: Side, theirs: Side): Promise<Result> {
  const samples = new Map<Side, number[]>([
    [ours, []],
    [theirs, []],
  ]);
  const rounds = flags.quick ? measure.rounds.quick : measure.rounds.full;
  for (const side of samples.keys()) await measure.prepare?.(side);
  for (let round = 0; round < rounds; round += 1)
    for (const side of round % 2 === 0 ? [ours, theirs] : [theirs, ours])
      samples.get(side)?.push(await measure.sample(side, round));
  for (const side of samples.keys()) await measure.tidy?.(side);
  const [mine = [], other = []] = [...samples.values()];
  const { name, what, unit } = measure;
  return {
    measure: { name, what, unit },
    ours: summarize(mine),
    theirs: summarize(other),
    ratio: summarizeRatios(mine, other),
  };
}

function keep(report: Report): void {
  mkdirSync(resultsDirectory, { recursive: true });
  const file = (extension: string) => join(resultsDirectory, `containers.${extension}`);
  writeFileSync(file('json'), `${JSON.stringify(report, undefined, 1)}\n`);
  writeFileSync(file('md'), markdown(report, 'containers.svg'));
  writeFileSync(file('svg'), picture(report));
  console.log(`written: ${file('md')}`);
}

async function bench(): Promise<void> {
  const peer: Peer = flags.self ? 'containerd' : flags.peer;
  await using first = await Daemon.start(peer);
  await using second = await Daemon.start('containerd');
  const label = { moord: 'Moor', containerd: 'containerd' }[peer];
  const ours: Side = {
    label: peer === 'containerd' ? `${label} (a)` : label,
    daemon: first,
    ctr: first.ctr(),
  };
  const theirs: Side = {
    label: peer === 'containerd' ? 'containerd (b)' : 'containerd',
    daemon: second,
    ctr: second.ctr(),
  };
  for (const side of [ours, theirs]) await warmUp(side);

  const chosen = measures.filter(({ name }) => flags.only?.includes(name) ?? true);
  const results: Result[] = [];
  for (const measure of chosen) {
    process.stderr.write(`${measure.name}: ${measure.what} …\n`);
    results.push(await compare(measure, ours, theirs));
  }
  const report: Report = {
    date: new Date().toISOString().slice(0, 10),
    machine: machine(),
    versions: await versions([first, second]),
    labels: { ours: ours.label, theirs: theirs.label },
    results,
  };
  console.log(table(report));
  const whole = !flags.quick && peer === 'moord' && chosen.length === measures.length;
  if (whole && flags.write) keep(report);
}

await bench();
