/** What a measure is: something done on both sides in turn, and the figures that come of it. */
import type { Side } from './side.ts';

export type Unit = 'ms' | 'MiB' | '%';

/** One line of the report. */
export interface Figure {
  readonly name: string;
  readonly what: string;
  readonly unit: Unit;
}

export interface Measure {
  /** As `--only` takes it. */
  readonly name: string;
  /** The heading that its figures stand under. */
  readonly topic: Topic;
  readonly figures: readonly Figure[];
  /** Samples of each side; `quick` when only a rough look is wanted. */
  readonly rounds: { readonly full: number; readonly quick: number };
  readonly prepare?: (side: Side) => Promise<void>;
  /** One value for each figure, in their order. */
  readonly sample: (side: Side, round: number) => Promise<readonly number[]>;
  readonly tidy?: (side: Side) => Promise<void>;
}

export type Topic =
  | 'Containers'
  | 'Many at once'
  | 'A crowd of containers'
  | 'Images'
  | 'Events and output'
  | 'Command line'
  | 'Pods';

/** A measure with a single figure of its own name. */
export function single(
  figure: Figure,
  measure: Omit<Measure, 'name' | 'figures' | 'sample'> & {
    readonly sample: (side: Side, round: number) => Promise<number>;
  },
): Measure {
  return {
    ...measure,
    name: figure.name,
    figures: [figure],
    sample: async (side, round) => [await measure.sample(side, round)],
  };
}
