/** Medians and quartiles: benchmarks on a shared machine have outliers that means would follow. */

export interface Summary {
  readonly median: number;
  /** First and third quartile: half of the samples lie between them. */
  readonly quartiles: readonly [number, number];
  readonly samples: readonly number[];
}

/** The value below which the fraction of the samples lies, interpolated. */
export function quantile(samples: readonly number[], fraction: number): number {
  const sorted = samples.toSorted((a, b) => a - b);
  const at = (sorted.length - 1) * fraction;
  const below = sorted[Math.floor(at)] ?? Number.NaN;
  const above = sorted[Math.ceil(at)] ?? Number.NaN;
  return below + (above - below) * (at - Math.floor(at));
}

export function summarize(samples: readonly number[]): Summary {
  return {
    median: quantile(samples, 0.5),
    quartiles: [quantile(samples, 0.25), quantile(samples, 0.75)],
    samples,
  };
}

/** Pair by pair: what came right after one another saw the same machine. */
export function summarizeRatios(ours: readonly number[], theirs: readonly number[]): Summary {
  return summarize(ours.map((value, index) => value / (theirs[index] ?? Number.NaN)));
}
