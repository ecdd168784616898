/** What is told to a client while something is under way. */
import type { Descriptor } from '../../proto/gen/containerd/types/descriptor.ts';
import type { Trace } from './transport.ts';

/** The events are the words that containerd's clients know. */
export interface Step {
  readonly event: string;
  readonly name?: string;
  readonly parents?: readonly string[];
  readonly progress?: number;
  readonly total?: number;
  readonly desc?: Descriptor;
}

export type Report = (step: Step) => void;

/** Headers that let their reader in. */
const SECRET = /^(?:authorization|proxy-authorization|cookie|set-cookie)$/i;

/** Tells a client of the exchanges with a registry, one line each, with their headers when `whole` is set. */
export function tracer(report: Report, whole: boolean): Trace {
  return ({ request, sent, milliseconds, status, received = {}, failure }) => {
    const lines = [`${request}: ${failure ?? status} in ${milliseconds.toFixed(0)} ms`];
    if (whole) {
      lines.push(...headerLines('>', sent), ...headerLines('<', received));
    }
    report({ event: 'http', name: lines.join('\n') });
  };
}

function headerLines(
  mark: string,
  headers: { readonly [name: string]: string | string[] | undefined },
): string[] {
  return Object.entries(headers).flatMap(([name, value]) =>
    [value ?? []].flat().map((each) => `${mark} ${name}: ${shown(name, each)}`),
  );
}

/** An address may hold a signature in its query. */
function shown(name: string, value: string): string {
  if (SECRET.test(name)) return '(withheld)';
  return name === 'location' ? value.replace(/\?.*$/, '?(withheld)') : value;
}

/** Milliseconds between two reports of the same kind. */
const INTERVAL = 100;

/** Leaves out reports that come too soon after another. */
export function paced(report: Report): Report {
  let next = 0;
  return (step) => {
    const now = performance.now();
    if (now < next) return;
    next = now + INTERVAL;
    report(step);
  };
}
