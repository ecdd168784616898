/** The results as a table and as Markdown. */
import Table from 'cli-table3';
import type { Limit } from './limits.ts';
import type { Figure, Topic } from './measure.ts';
import type { Summary } from './statistics.ts';

/** When, where and between what a figure was taken. */
export interface Setting {
  readonly date: string;
  /** Processor, cores, memory, kernel. */
  readonly machine: string;
  /** Versions of everything that took part. */
  readonly versions: Readonly<Record<string, string>>;
}

export interface Result {
  readonly topic: Topic;
  readonly figure: Figure;
  readonly limit?: Limit;
  readonly measured: Setting;
  readonly ours: Summary;
  readonly theirs: Summary;
  /** Ours through theirs, pair by pair: below 1 ours is better. */
  readonly ratio: Summary;
}

export interface Report {
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

/** Whether the median keeps to the limit, as a reader sees it: with two decimals. */
export function isMet({ ratio, limit }: Result): boolean {
  return limit === undefined || Number(ratio.median.toFixed(2)) <= limit.most;
}

/** The limit and what has become of it. */
function verdict(result: Result): string {
  const { ratio, limit } = result;
  if (limit === undefined) return '';
  if (!isMet(result)) return `${limit.most}: missed`;
  return ratio.median <= limit.stretch
    ? `${limit.most}: met, and ${limit.stretch} too`
    : `${limit.most}: met`;
}

const row = (result: Result): string[] => [
  result.figure.name,
  result.figure.what,
  spread(result.ours, ` ${result.figure.unit}`),
  spread(result.theirs, ` ${result.figure.unit}`),
  fixed(result.ratio),
  verdict(result),
];

const heads = ({ labels }: Report) => ['measure', 'what', labels.ours, labels.theirs, 'ratio', 'at most'];

/** For the terminal. */
export function table(report: Report): string {
  const drawn = new Table({ head: heads(report), style: { head: [], border: [] } });
  for (const [topic, results] of byTopic(report))
    drawn.push([{ content: topic, colSpan: 6 }], ...results.map(row));
  const { ours, theirs } = report.labels;
  return [
    drawn.toString(),
    `median (quartiles); ratio = ${ours} / ${theirs}, pair by pair`,
    ...tally(report),
  ].join('\n');
}

const named = ({ figure, ratio }: Result) => `${figure.name} ${ratio.median.toFixed(2)}`;

/** What a reader in a hurry, or in doubt, wants to know: the limits missed, and all that is worse than the peer's. */
function tally({ results }: Report): string[] {
  const limited = results.filter(({ limit }) => limit !== undefined);
  if (limited.length === 0) return [];
  const missed = limited.filter((result) => !isMet(result));
  const others = results.filter(({ limit, ratio }) => limit === undefined && ratio.median > 1);
  const list = (some: readonly Result[]) => (some.length === 0 ? 'none' : some.map(named).join(', '));
  return [
    `Limits: ${limited.length - missed.length} of ${limited.length} met. Missed: ${list(missed)}.`,
    `Without a limit, and above 1: ${list(others)}.`,
  ];
}

/** For docs/bench. Rows that were not measured together are told apart by a letter. */
export function markdown(report: Report, picture: string): string {
  const settings = [...new Set(report.results.map(({ measured }) => describeSetting(measured)))];
  const letter = ({ measured }: Result) =>
    String.fromCharCode('a'.charCodeAt(0) + settings.indexOf(describeSetting(measured)));
  const several = settings.length > 1;
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  const columns = several ? [...heads(report), 'when'] : heads(report);
  const topics = [...byTopic(report)].flatMap(([topic, results]) => [
    `## ${topic}`,
    '',
    line(columns),
    line(columns.map(() => '---')),
    ...results.map((result) => line(several ? [...row(result), letter(result)] : row(result))),
    '',
  ]);
  return [
    `# ${report.labels.ours} beside ${report.labels.theirs}`,
    '',
    ...settings.map((setting, index) =>
      several ? `- ${String.fromCharCode('a'.charCodeAt(0) + index)}: ${setting}` : `Measured on ${setting}`,
    ),
    '',
    'Made by `npm run bench`: one client, pairs interleaved. Median (quartiles); a ratio below 1 is ours.',
    ...tally(report).flatMap((text) => ['', text]),
    '',
    `![Medians and quartiles](${picture})`,
    '',
    ...topics,
  ].join('\n');
}

function describeSetting({ date, machine, versions }: Setting): string {
  const all = Object.entries(versions).map(([name, version]) => `${name} ${version}`);
  return `${date}: ${machine}; ${all.join(', ')}.`;
}
