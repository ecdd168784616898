/** How long the command lines take to start: a call that asks the daemon next to nothing. */
import { Moor } from '../test/harness/moor.ts';
import { describe } from '../test/harness/program.ts';
import { type Measure, single } from './measure.ts';

export const commandLine: Measure = single(
  { name: 'cli', what: 'moor version beside ctr version', unit: 'ms' },
  {
    topic: 'Command line',
    rounds: { full: 30, quick: 6 },
    sample: async (side) => {
      if (side.daemon.peer !== 'moord') return side.timed(['version']);
      const outcome = await new Moor(side.daemon, side.ctr.namespace).call(['version']);
      if (outcome.code !== 0) throw new Error(`${side.label}: ${describe(outcome)}`);
      return outcome.milliseconds;
    },
  },
);
