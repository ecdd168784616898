/** Prometheus' text format, version 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats). */
import { setImmediate as turn } from 'node:timers/promises';

export const CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

export type Labels = Readonly<Record<string, string>>;

/** One number. Whole numbers of 64 bits keep all their digits. */
export interface Sample {
  readonly labels?: Labels;
  readonly value: number | bigint;
  /** After the family's name, for the parts of a histogram. */
  readonly suffix?: '_bucket' | '_sum' | '_count';
}

/** What is counted or measured, under one name. */
export interface Family {
  readonly name: string;
  readonly help: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly samples: readonly Sample[];
}

/** The event loop is let go after that many milliseconds of work. */
const SLICE_MS = 5;

/** The text of some families, piece by piece, so that nobody else waits for long. Families without samples are left out. */
export async function* expose(families: Iterable<Family>): AsyncGenerator<string, void, undefined> {
  let end = performance.now() + SLICE_MS;
  for (const family of families) {
    if (family.samples.length > 0) yield formatFamily(family);
    if (performance.now() < end) continue;
    await turn();
    end = performance.now() + SLICE_MS;
  }
}

export function formatFamily({ name, help, type, samples }: Family): string {
  const lines = [`# HELP ${name} ${escape(help)}`, `# TYPE ${name} ${type}`];
  for (const { labels = {}, value, suffix = '' } of samples) {
    lines.push(`${name}${suffix}${formatLabels(labels)} ${formatValue(value)}`);
  }
  return `${lines.join('\n')}\n`;
}

function formatLabels(labels: Labels): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escape(value, true)}"`);
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`;
}

function formatValue(value: number | bigint): string {
  if (value === Infinity) return '+Inf';
  return value === -Infinity ? '-Inf' : String(value);
}

function escape(text: string, quoted = false): string {
  const escaped = text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n');
  return quoted ? escaped.replaceAll('"', '\\"') : escaped;
}
