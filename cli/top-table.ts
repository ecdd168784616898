/** The table of `moor top`: lines that fit the screen. */
import type { Usage } from './sample.ts';

export const SORTS = ['cpu', 'memory', 'io', 'pids', 'name'] as const;
export type Sort = (typeof SORTS)[number];

/** The greatest first; names in their order. */
export function sorted(usages: readonly Usage[], by: Sort): Usage[] {
  const weight: Record<Sort, (usage: Usage) => number> = {
    cpu: ({ cpuPercent }) => cpuPercent ?? 0,
    memory: ({ memory }) => Number(memory),
    io: ({ readRate = 0, writeRate = 0 }) => readRate + writeRate,
    pids: ({ pids }) => Number(pids),
    name: () => 0,
  };
  return usages.toSorted((a, b) => weight[by](b) - weight[by](a) || (a.id < b.id ? -1 : 1));
}

const HEADER = ['CONTAINER', 'CPU %', 'MEMORY', 'LIMIT', 'MEM %', 'READ/S', 'WRITE/S', 'PIDS'] as const;

export function cells({ id, ...usage }: Usage): string[] {
  const { cpuPercent, memory, memoryLimit, memoryPercent, readRate, writeRate, pids } = usage;
  return [
    id,
    cpuPercent === undefined ? '-' : cpuPercent.toFixed(1),
    bytes(Number(memory)),
    memoryLimit === undefined ? '-' : bytes(Number(memoryLimit)),
    memoryPercent === undefined ? '-' : memoryPercent.toFixed(1),
    readRate === undefined ? '-' : bytes(readRate),
    writeRate === undefined ? '-' : bytes(writeRate),
    String(pids),
  ];
}

/** Names are never made shorter than that. */
const SHORTEST_NAME = 8;

/**
 * The table's lines, the header first. Numbers are to the right; names give way, and then the last columns, until the lines fit.
 *
 * @param columns of the screen; Infinity for no limit
 */
export function tableLines(usages: readonly Usage[], columns: number): string[] {
  const lines = [[...HEADER], ...usages.map(cells)];
  const widths = HEADER.map((_, column) => Math.max(...lines.map((line) => line[column]!.length)));
  const widthOf = (count: number) => widths.slice(0, count).reduce((total, width) => total + width + 2, -2);
  widths[0] = Math.max(
    Math.min(widths[0]!, SHORTEST_NAME),
    Math.min(widths[0]!, columns - widthOf(HEADER.length) + widths[0]!),
  );
  let count = HEADER.length;
  while (count > 1 && widthOf(count) > columns) count -= 1;
  return lines.map(([name = '', ...numbers]) =>
    [
      shortened(name, widths[0]!).padEnd(widths[0]!),
      ...numbers.slice(0, count - 1).map((cell, index) => cell.padStart(widths[index + 1]!)),
    ]
      .join('  ')
      .slice(0, columns)
      .trimEnd(),
  );
}

function shortened(name: string, width: number): string {
  return name.length <= width ? name : `${name.slice(0, width - 1)}…`;
}

export interface ScreenSize {
  readonly columns: number;
  readonly rows: number;
}

/** What the screen shows: a line about the whole, the table, and as the last line how many containers have no room. */
export function screenLines(
  usages: readonly Usage[],
  title: string,
  { columns, rows }: ScreenSize,
): string[] {
  const [header = '', ...lines] = tableLines(usages, columns);
  const room = Math.max(rows - 2, 0);
  const shown = lines.length <= room ? lines : lines.slice(0, Math.max(room - 1, 0));
  const hidden = lines.length - shown.length;
  const more = hidden > 0 ? [`… and ${hidden} more`] : [];
  return [title, header, ...shown, ...more].map((line) => line.slice(0, columns)).slice(0, rows);
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];

/** A number of bytes in three digits or four and a unit. */
export function bytes(count: number): string {
  let [value, unit] = [count, 0];
  while (value >= 1023.95 && unit < UNITS.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${unit === 0 ? Math.round(value) : value.toFixed(value < 100 ? 1 : 0)}${UNITS[unit]}`;
}
