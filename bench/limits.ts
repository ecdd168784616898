/** What Moor has set itself: ratios to containerd that must hold, and those worth striving for. */

export interface Limit {
  /** The largest ratio that is good enough. */
  readonly most: number;
  /** The ratio that would be a reason to be proud. */
  readonly stretch: number;
}

const quick: Limit = { most: 0.75, stretch: 0.5 };
const image: Limit = { most: 0.9, stretch: 0.6 };
const pod: Limit = { most: 0.9, stretch: 0.7 };

/** By the figure's name. */
export const limits: Readonly<Record<string, Limit>> = {
  'run-rm': quick,
  'run-d': quick,
  exec: quick,
  'at-once-8': quick,
  'shim-private': { most: 1, stretch: 0.7 },
  'memory-100': { most: 1.2, stretch: 0.8 },
  'restart-100': { most: 1, stretch: 0.5 },
  'pull-large-ctr': image,
  'pull-large-own': image,
  'pull-small-ctr': image,
  'pull-small-own': image,
  stdout: { most: 1, stretch: 0.7 },
  idle: { most: 1, stretch: 0.5 },
  'cri-run-pod': pod,
  'cri-container': pod,
  'cri-stop-pod': pod,
};
