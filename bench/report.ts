/** The results as a table and as Markdown. */
import Table from 'cli-table3';
import type { Figure, Topic } from './measure.ts';
import type { Summary } from './statistics.ts';

export interface Result {
  readonly topic: Topic;
  readonly figure: Figure;
  readonly ours: Summary;
  readonly theirs: Summary;
  /** Ours through theirs, pair by pair: below 1 ours is better. */
  readonly ratio: Summary;
}

export interface Report {
  readonly date: string;
  /** How long the run took. */
  readonly minutes: number;
  /** Processor, cores, memory, kernel. */
  readonly machine: string;
  /** Versions of everything that took part. */
  readonly versions: Readonly<Record<string, string>>;
  readonly labels: { readonly ours: string; readonly theirs: string };
  readonly results: readonly Result[];
}

export const number = (value: number) =>
  value >= 100 ? value.toFixed(0) : value.toFixed(value >= 10 ? 1 : 2);
const spread = ({ median, quartiles: [low, high] }: Summary, unit = '') =>
  `${number(median)}${unit} (${number(low)}–${number(high)})`;
const fixed = ({ median, quartiles: [low, high] }: Summary) =>
  `${median.toFixed(2)} (${low.toFixed(2)}–${high.toFixed(2)})`;

/** The results under their topics, in the order of the run. */
export function byTopic({ results }: Report): Map<Topic, Result[]> {
  return Map.groupBy(results, ({ topic }) => topic);
}

const row = ({ figure: { name, what, unit }, ours, theirs, ratio }: Result): string[] => [
  name,
  what,
  spread(ours, ` ${unit}`),
  spread(theirs, ` ${unit}`),
  fixed(ratio),
];

const heads = ({ labels }: Report) => ['measure', 'what', labels.ours, labels.theirs, 'ratio'];

/** For the terminal. */
export function table(report: Report): string {
  const drawn = new Table({ head: heads(report), style: { head: [], border: [] } });
  for (const [topic, results] of byTopic(report))
    drawn.push([{ content: topic, colSpan: 5 }], ...results.map(row));
  return `${drawn.toString()}\nmedian (quartiles); ratio = ${report.labels.ours} / ${report.labels.theirs}, pair by pair`;
}

/** For docs/bench. */
export function markdown(report: Report, picture: string): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  const versions = Object.entries(report.versions).map(([name, version]) => `${name} ${version}`);
  const topics = [...byTopic(report)].flatMap(([topic, results]) => [
    `## ${topic}`,
    '',
    line(heads(report)),
    line(heads(report).map(() => '---')),
    ...results.map(row).map(line),
    '',
  ]);
  return [
    `# ${report.labels.ours} beside ${report.labels.theirs}`,
    '',
    `Measured on ${report.date}: ${report.machine}; ${versions.join(', ')}.`,
    'Made by `npm run bench`: one run, one client, pairs interleaved. Median (quartiles); a ratio below 1 is ours.',
    '',
    `![Medians and quartiles](${picture})`,
    '',
    ...topics,
  ].join('\n');
}
