/** What is told to a client while something is under way. */
import type { Descriptor } from '../../proto/gen/containerd/types/descriptor.ts';

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
