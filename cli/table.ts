/** Listings: ctr's columns, which scripts cut apart, a framed table for people, and JSON for programs. */
import { Option } from 'commander';

export type Format = 'columns' | 'table' | 'json' | 'yaml';

export interface FormatOptions {
  readonly format: Format;
}

export function formatOption(): Option {
  return new Option('--format <format>', "how to print: ctr's columns, a framed table or JSON")
    .choices(['columns', 'table', 'json'])
    .default('columns');
}

export interface Listing {
  readonly header: readonly string[];
  readonly rows: readonly (readonly string[])[];
  /** What JSON and YAML show, in place of header and rows. */
  readonly json: unknown;
  /** ctr's spacing: the least width of a column and the blanks after it. Default: 4 and 4. */
  readonly spacing?: readonly [width: number, padding: number];
  /** Which lines ctr fills with blanks to the end of the last column. Default: all. */
  readonly filled?: 'all' | 'header' | 'none';
  /** ctr fills some with tabs, of eight columns each. */
  readonly tabs?: boolean;
}

export async function printListing(listing: Listing, { format }: FormatOptions): Promise<void> {
  const { header, rows, json, spacing, filled = 'all', tabs = false } = listing;
  if (format === 'json') {
    printJson(json);
  } else if (format === 'yaml') {
    await printYaml(json);
  } else if (format === 'table') {
    const { default: Table } = await import('cli-table3');
    const table = new Table({ head: [...header], style: { head: [], border: [] } });
    for (const row of rows) table.push([...row]);
    console.log(table.toString());
  } else {
    const head = filled === 'none' ? [...header] : [...header, ''];
    const body = rows.map((row) => (filled === 'all' ? [...row, ''] : [...row]));
    print(tabulate([head, ...body], spacing, tabs));
  }
}

/** Indented, for people and programs. */
export function printJson(value: unknown): void {
  console.log(JSON.stringify(value, undefined, 2));
}

/** What JSON says, as YAML: no number loses digits. */
export async function printYaml(value: unknown): Promise<void> {
  const { parse, stringify } = await import('yaml');
  process.stdout.write(stringify(parse(JSON.stringify(value), { intAsBigInt: true }), { lineWidth: 0 }));
}

export function print(lines: readonly string[]): void {
  if (lines.length > 0) console.log(lines.join('\n'));
}

const TAB = 8;

/**
 * Lines of cells as text in columns. A column's width holds for neighbouring lines that all have a cell after it, as
 * Go's text/tabwriter, by which ctr prints, has it; the last cell of a line is not padded.
 */
export function tabulate(
  lines: readonly (readonly string[])[],
  [width, padding]: readonly [width: number, padding: number] = [4, 4],
  tabs = false,
): string[] {
  const widths = lines.map((line) => line.map(() => 0));
  const format = (from: number, to: number, column: number): void => {
    for (let start = from; start < to; start += 1) {
      if (column >= lines[start]!.length - 1) continue;
      let end = start;
      let widest = width;
      while (end < to && column < lines[end]!.length - 1) {
        widest = Math.max(widest, lines[end]![column]!.length + padding);
        end += 1;
      }
      for (let line = start; line < end; line += 1) widths[line]![column] = widest;
      format(start, end, column + 1);
      start = end - 1;
    }
  };
  format(0, lines.length, 0);
  const filled = (cell: string, cellWidth: number): string => {
    if (!tabs || cellWidth === 0) return cell.padEnd(cellWidth);
    return cell + '\t'.repeat(Math.ceil(cellWidth / TAB) - Math.floor(cell.length / TAB));
  };
  return lines.map((line, row) => line.map((cell, column) => filled(cell, widths[row]![column]!)).join(''));
}
