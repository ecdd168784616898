/** The results in the repository. Each row stays until it is measured anew, and tells when that was. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { picture } from './chart.ts';
import { markdown, type Report } from './report.ts';

/**
 * @param order names of all figures there are: the rows' order. A row of a figure that is no more goes.
 */
export function merge(kept: Report | undefined, fresh: Report, order: readonly string[]): Report {
  const rows = new Map([...(kept?.results ?? []), ...fresh.results].map((row) => [row.figure.name, row]));
  return { labels: fresh.labels, results: order.flatMap((name) => rows.get(name) ?? []) };
}

/**
 * Puts fresh rows in the place of the old ones.
 *
 * @param name `results`, or `noise` for what the machine makes of equals
 * @returns the path of the page
 */
export function keep(directory: string, name: string, fresh: Report, order: readonly string[]): string {
  const file = (extension: string) => join(directory, `${name}.${extension}`);
  const kept = existsSync(file('json'))
    ? (JSON.parse(readFileSync(file('json'), 'utf8')) as Report)
    : undefined;
  const report = merge(kept, fresh, order);
  mkdirSync(directory, { recursive: true });
  writeFileSync(file('json'), `${JSON.stringify(report, rounded, 1)}\n`);
  writeFileSync(file('md'), markdown(report, `${name}.svg`));
  writeFileSync(file('svg'), picture(report));
  return file('md');
}

/** No clock here is good for more digits. */
function rounded(_key: string, value: unknown): unknown {
  return typeof value === 'number' ? Number(value.toPrecision(5)) : value;
}
