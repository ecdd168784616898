/** What is measured, each on a daemon that is up and warm, with Debian's ctr as the client. */
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Ctr } from '../test/harness/ctr.ts';
import { describe } from '../test/harness/program.ts';
import type { Daemon } from '../test/harness/daemon.ts';
import { privateMemory, processOf } from '../test/harness/processes.ts';
import { eventually } from '../test/harness/wait.ts';

/** One side of a comparison. */
export interface Side {
  readonly label: string;
  readonly daemon: Daemon;
  readonly ctr: Ctr;
}

export interface Measure {
  readonly name: string;
  readonly what: string;
  readonly unit: 'ms' | 'MiB';
  /** Samples of each side; `quick` when only a rough look is wanted. */
  readonly rounds: { readonly full: number; readonly quick: number };
  readonly prepare?: (side: Side) => Promise<void>;
  readonly sample: (side: Side, round: number) => Promise<number>;
  readonly tidy?: (side: Side) => Promise<void>;
}

/** How many containers run when the daemon is restarted. */
const crowd = Array.from({ length: 30 }, (_, index) => `crowd-${index}`);
const idleCommand = ['/bin/sleep', '100000'];

/** Milliseconds of a ctr call that must succeed. */
async function timed(side: Side, args: readonly string[]): Promise<number> {
  const outcome = await side.ctr.call(args);
  if (outcome.code !== 0) throw new Error(`${side.label}: ${describe(outcome)}\n${side.daemon.tail()}`);
  return outcome.milliseconds;
}

async function shimMemory({ ctr }: Side, id: string): Promise<number> {
  const init = await ctr.task(id);
  const shim = processOf(init?.pid ?? 0)?.parent ?? 0;
  return privateMemory(shim) / 1024 / 1024;
}

export const measures: readonly Measure[] = [
  {
    name: 'run-rm',
    what: 'ctr run --rm … /bin/true',
    unit: 'ms',
    rounds: { full: 40, quick: 8 },
    sample: (side, round) => timed(side, side.ctr.runArgs(`rm-${round}`, ['/bin/true'], ['--rm'])),
  },
  {
    name: 'run-d',
    what: 'ctr run -d … sleep',
    unit: 'ms',
    rounds: { full: 40, quick: 8 },
    sample: async (side, round) => {
      const id = `d-${round}`;
      const milliseconds = await timed(side, side.ctr.runArgs(id, idleCommand, ['-d']));
      await side.ctr.remove(id);
      return milliseconds;
    },
  },
  {
    name: 'exec',
    what: 'ctr task exec … /bin/true',
    unit: 'ms',
    rounds: { full: 60, quick: 10 },
    prepare: ({ ctr }) => ctr.runDetached('stage', idleCommand),
    sample: (side) => timed(side, side.ctr.execArgs('stage', ['/bin/true'])),
    tidy: ({ ctr }) => ctr.remove('stage'),
  },
  {
    name: 'restart',
    what: 'kill -9 and start to first answer, 30 containers',
    unit: 'ms',
    rounds: { full: 10, quick: 3 },
    prepare: async ({ ctr }) => {
      for (const id of crowd) await ctr.runDetached(id, idleCommand);
    },
    sample: async ({ daemon, ctr }) => {
      const milliseconds = await daemon.restart();
      const running = [...(await ctr.tasks()).values()].filter(({ status }) => status === 'RUNNING');
      if (running.length !== crowd.length) throw new Error(`${running.length} containers are running`);
      return milliseconds;
    },
    tidy: async ({ ctr }) => {
      for (const id of crowd) await ctr.remove(id);
    },
  },
  {
    name: 'shim-memory',
    what: 'private memory of an idle shim beside others',
    unit: 'MiB',
    rounds: { full: 6, quick: 3 },
    // A lone shim's program text counts as private: 9 MiB of containerd's are shared as soon as there are two.
    prepare: async ({ ctr }) => {
      for (const id of ['neighbour-1', 'neighbour-2']) await ctr.runDetached(id, idleCommand);
    },
    sample: async (side, round) => {
      const id = `idle-${round}`;
      await side.ctr.runDetached(id, idleCommand);
      await delay(2000); // what start-up leaves behind is collected by then
      const size = await shimMemory(side, id);
      await side.ctr.remove(id);
      return size;
    },
    tidy: async ({ ctr }) => {
      for (const id of ['neighbour-1', 'neighbour-2']) await ctr.remove(id);
    },
  },
];

/** Runs a container once through, so that no measure pays for a cold start. */
export async function warmUp(side: Side): Promise<void> {
  for (let round = 0; round < 2; round += 1)
    await timed(side, side.ctr.runArgs('warm', ['/bin/true'], ['--rm']));
  await eventually('the warm-up is over', async () => (await side.ctr.tasks()).size === 0);
}

/** Where the results of full runs are kept. */
export const resultsDirectory = join(import.meta.dirname, '../docs/bench');
