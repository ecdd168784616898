/** The results as a table, as Markdown, and as a picture. */
import Table from 'cli-table3';
import type { Measure } from './measures.ts';
import type { Summary } from './statistics.ts';

export interface Result {
  readonly measure: Pick<Measure, 'name' | 'what' | 'unit'>;
  readonly ours: Summary;
  readonly theirs: Summary;
  /** Ours through theirs, pair by pair: below 1 ours is better. */
  readonly ratio: Summary;
}

export interface Report {
  readonly date: string;
  /** Processor, cores, memory, kernel. */
  readonly machine: string;
  /** Versions of everything that took part. */
  readonly versions: Readonly<Record<string, string>>;
  readonly labels: { readonly ours: string; readonly theirs: string };
  readonly results: readonly Result[];
}

const number = (value: number) => (value >= 100 ? value.toFixed(0) : value.toFixed(value >= 10 ? 1 : 2));
const spread = ({ median, quartiles: [low, high] }: Summary, unit = '') =>
  `${number(median)}${unit} (${number(low)}–${number(high)})`;
const fixed = ({ median, quartiles: [low, high] }: Summary) =>
  `${median.toFixed(2)} (${low.toFixed(2)}–${high.toFixed(2)})`;

function rows({ results }: Report): string[][] {
  return results.map(({ measure, ours, theirs, ratio }) => [
    measure.name,
    measure.what,
    spread(ours, ` ${measure.unit}`),
    spread(theirs, ` ${measure.unit}`),
    fixed(ratio),
  ]);
}

const heads = ({ labels }: Report) => ['measure', 'what', labels.ours, labels.theirs, 'ratio'];

/** For the terminal. */
export function table(report: Report): string {
  const drawn = new Table({ head: heads(report), style: { head: [], border: [] } });
  drawn.push(...rows(report));
  return `${drawn.toString()}\nmedian (quartiles); ratio = ${report.labels.ours} / ${report.labels.theirs}, pair by pair`;
}

/** For docs/bench. */
export function markdown(report: Report, picture: string): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  const versions = Object.entries(report.versions).map(([name, version]) => `${name} ${version}`);
  return [
    `# ${report.labels.ours} beside ${report.labels.theirs}`,
    '',
    `Measured on ${report.date}: ${report.machine}; ${versions.join(', ')}.`,
    'Made by `npm run bench`: one run, one client, pairs interleaved. Median (quartiles); a ratio below 1 is ours.',
    '',
    line(heads(report)),
    line(heads(report).map(() => '---')),
    ...rows(report).map(line),
    '',
    `![Medians and quartiles](${picture})`,
    '',
  ].join('\n');
}

/** Bars of the medians, each pair to its own scale, with the quartiles as whiskers. */
export function picture(report: Report): string {
  const [width, left, bar, gap] = [720, 150, 16, 26];
  const room = width - left - 150;
  const parts = report.results.flatMap(({ measure, ours, theirs }, index) => {
    const top = 40 + index * (2 * bar + gap);
    const largest = Math.max(ours.quartiles[1], theirs.quartiles[1]);
    const scale = (value: number) => ((value / largest) * room).toFixed(1);
    const draw = ({ median, quartiles: [low, high] }: Summary, y: number, colour: string) => {
      const middle = y + bar / 2;
      const whisker = `M${left + Number(scale(low))} ${middle}H${left + Number(scale(high))}`;
      const label = `${number(median)} ${measure.unit}`;
      return [
        `<rect x="${left}" y="${y}" width="${scale(median)}" height="${bar - 2}" fill="${colour}"/>`,
        `<path d="${whisker}" stroke="#222" stroke-width="1.5"/>`,
        `<text x="${left + room + 12}" y="${y + bar - 4}">${label}</text>`,
      ];
    };
    return [
      `<text x="${left - 10}" y="${top + bar + 4}" text-anchor="end">${measure.name}</text>`,
      ...draw(ours, top, '#1c7c9c'),
      ...draw(theirs, top + bar, '#b9b9b9'),
    ];
  });
  const height = 40 + report.results.length * (2 * bar + gap);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="13">`,
    `<rect width="${width}" height="${height}" fill="#fff"/>`,
    `<rect x="${left}" y="12" width="12" height="12" fill="#1c7c9c"/>`,
    `<text x="${left + 18}" y="23">${report.labels.ours}</text>`,
    `<rect x="${left + 130}" y="12" width="12" height="12" fill="#b9b9b9"/>`,
    `<text x="${left + 148}" y="23">${report.labels.theirs}</text>`,
    ...parts,
    '</svg>',
    '',
  ].join('\n');
}
