/** The results as a picture. */
import { byTopic, isMet, number, type Report, type Result } from './report.ts';
import type { Summary } from './statistics.ts';

const [WIDTH, LEFT, RIGHT] = [800, 170, 200];
const ROOM = WIDTH - LEFT - RIGHT;
const [BAR, GAP, HEADING] = [13, 12, 34];
const [OURS, THEIRS] = ['#1c7c9c', '#b9b9b9'];
const [MET, MISSED] = ['#2e7d32', '#b3261e'];

/**
 * Bars of the medians, each pair to its own scale, with the quartiles as whiskers. An upright line shows how far our bar may
 * reach where there is a limit; the ratio beside it is green or red for it.
 */
export function picture(report: Report): string {
  const parts: string[] = [];
  let top = 34;
  for (const [topic, results] of byTopic(report)) {
    top += HEADING;
    parts.push(`<text x="12" y="${top - 10}" font-weight="bold">${topic}</text>`);
    for (const result of results) {
      parts.push(...pair(result, top));
      top += 2 * BAR + GAP;
    }
  }
  const legend = (x: number, colour: string, label: string) => [
    `<rect x="${x}" y="12" width="12" height="12" fill="${colour}"/>`,
    `<text x="${x + 18}" y="23">${label}</text>`,
  ];
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${top + 6}" font-family="sans-serif" font-size="12">`,
    `<rect width="${WIDTH}" height="${top + 6}" fill="#fff"/>`,
    ...legend(LEFT, OURS, report.labels.ours),
    ...legend(LEFT + 130, THEIRS, report.labels.theirs),
    ...parts,
    '</svg>',
    '',
  ].join('\n');
}

function pair(result: Result, top: number): string[] {
  const { figure, ours, theirs, ratio, limit } = result;
  const allowed = limit === undefined ? 0 : limit.most * theirs.median;
  const largest = Math.max(ours.quartiles[1], theirs.quartiles[1], allowed);
  const x = (value: number) => LEFT + (value / largest) * ROOM;
  const bar = ({ median, quartiles: [low, high] }: Summary, y: number, colour: string) => [
    `<rect x="${LEFT}" y="${y}" width="${(x(median) - LEFT).toFixed(1)}" height="${BAR - 1}" fill="${colour}"/>`,
    `<path d="M${x(low).toFixed(1)} ${y + BAR / 2}H${x(high).toFixed(1)}" stroke="#222" stroke-width="1.5"/>`,
    `<text x="${LEFT + ROOM + 10}" y="${y + BAR - 3}">${number(median)} ${figure.unit}</text>`,
  ];
  const colour = isMet(result) ? MET : MISSED;
  const [fill, bound] = limit === undefined ? ['#000', ''] : [colour, ` (≤ ${limit.most})`];
  return [
    `<text x="${LEFT - 10}" y="${top + BAR + 4}" text-anchor="end">${figure.name}</text>`,
    ...bar(ours, top, OURS),
    ...bar(theirs, top + BAR, THEIRS),
    ...(limit === undefined
      ? []
      : [`<path d="M${x(allowed).toFixed(1)} ${top - 2}v${BAR + 3}" stroke="${colour}" stroke-width="2"/>`]),
    `<text x="${WIDTH - 12}" y="${top + BAR + 4}" text-anchor="end" fill="${fill}">${ratio.median.toFixed(2)}${bound}</text>`,
  ];
}
