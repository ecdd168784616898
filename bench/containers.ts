/** One container at a time, and several. */
import { type Measure, single } from './measure.ts';
import { idleCommand, type Side } from './side.ts';

const together = (count: number): Measure =>
  single(
    { name: `at-once-${count}`, what: `${count} times ctr run --rm … true at the same time`, unit: 'ms' },
    {
      topic: 'Many at once',
      rounds: count > 8 ? { full: 6, quick: 1 } : { full: 12, quick: 3 },
      sample: async (side, round) => {
        const began = performance.now();
        const calls = Array.from({ length: count }, (_, index) =>
          side.timed(side.ctr.runArgs(`once-${round}-${index}`, ['/bin/true'], ['--rm'])),
        );
        await Promise.all(calls);
        return performance.now() - began;
      },
    },
  );

export const containers: readonly Measure[] = [
  single(
    { name: 'run-rm', what: 'ctr run --rm … true', unit: 'ms' },
    {
      topic: 'Containers',
      rounds: { full: 40, quick: 8 },
      sample: (side, round) => side.timed(side.ctr.runArgs(`rm-${round}`, ['/bin/true'], ['--rm'])),
    },
  ),
  {
    name: 'run-d',
    topic: 'Containers',
    figures: [
      { name: 'run-d', what: 'ctr run -d … sleep', unit: 'ms' },
      { name: 'delete', what: 'ctr task rm -f of that container', unit: 'ms' },
    ],
    rounds: { full: 40, quick: 8 },
    sample: async (side, round) => {
      const id = `d-${round}`;
      const run = await side.timed(side.ctr.runArgs(id, idleCommand, ['-d']));
      const remove = await side.timed(['tasks', 'rm', '-f', id]);
      await side.timed(['containers', 'rm', id]);
      return [run, remove];
    },
  },
  single(
    { name: 'exec', what: 'ctr task exec … true', unit: 'ms' },
    {
      topic: 'Containers',
      rounds: { full: 60, quick: 10 },
      prepare: ({ ctr }) => ctr.runDetached('stage', idleCommand),
      sample: (side: Side) => side.timed(side.ctr.execArgs('stage', ['/bin/true'])),
      tidy: ({ ctr }) => ctr.remove('stage'),
    },
  ),
  together(8),
  together(32),
];
