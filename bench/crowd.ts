/** Containers that do nothing: what they weigh, and how a daemon comes back to them. */
import { setTimeout as delay } from 'node:timers/promises';
import { privateMemory, processOf } from '../test/harness/processes.ts';
import { family, proportionalMemory } from './account.ts';
import { type Measure, single } from './measure.ts';
import type { Side } from './side.ts';

const MIB = 1024 * 1024;
/** Milliseconds after which what start-up leaves behind is collected. */
const SETTLED = 5000;
/** Milliseconds of idling in one sample. */
const WINDOW = 5000;

const restart = (count: number): Measure =>
  single(
    { name: `restart-${count}`, what: `kill -9 and start to first answer, ${count} containers`, unit: 'ms' },
    {
      topic: 'A crowd of containers',
      rounds: { full: 8, quick: 3 },
      prepare: async (side) => void (await side.crowd(count)),
      sample: async (side) => {
        const milliseconds = await side.restart();
        const running = [...(await side.ctr.tasks()).values()].filter(({ status }) => status === 'RUNNING');
        if (running.length !== count)
          throw new Error(`${side.label}: ${running.length} of ${count} containers are running`);
        return milliseconds;
      },
    },
  );

/** The shims of the crowd, in the order of their containers. */
async function shims(side: Side): Promise<number[]> {
  const tasks = await side.ctr.tasks();
  return [...tasks.values()].map(({ pid }) => processOf(pid)?.parent ?? 0);
}

/** MiB of the shims, and of the daemon with what else it has started. */
async function weigh(side: Side): Promise<{ shims: number; daemon: number }> {
  const all = await shims(side);
  // Forked shims are children of the daemon's template.
  const others = family(side.daemon.pid).filter((pid) => !all.includes(pid));
  const sum = (pids: readonly number[]) =>
    pids.reduce((total, pid) => total + proportionalMemory(pid), 0) / MIB;
  return { shims: sum(all), daemon: sum(others) };
}

const memory = (count: number): Measure => ({
  name: `memory-${count}`,
  topic: 'A crowd of containers',
  figures: [
    { name: `memory-${count}`, what: `daemon and ${count} shims, proportional`, unit: 'MiB' },
    {
      name: `daemon-${count}`,
      what: `the daemon without the shims, proportional, ${count} containers`,
      unit: 'MiB',
    },
  ],
  rounds: { full: 3, quick: 1 },
  prepare: async (side) => {
    await side.crowd(count);
    await delay(SETTLED);
  },
  sample: async (side) => {
    const { shims, daemon } = await weigh(side);
    return [shims + daemon, daemon];
  },
});

/** Asked for once: a shim that has to answer at each look is not idle. */
const idleShims = new Map<Side, readonly number[]>();

/** Which shim is looked at changes with the round. */
const shim: Measure = {
  name: 'shim',
  topic: 'A crowd of containers',
  figures: [
    { name: 'shim-private', what: 'private memory of an idle shim, one of 50', unit: 'MiB' },
    { name: 'shim-share', what: 'proportional memory of an idle shim, one of 50', unit: 'MiB' },
  ],
  rounds: { full: 50, quick: 10 },
  prepare: async (side) => {
    await side.crowd(50);
    idleShims.set(side, await shims(side));
    await delay(SETTLED);
  },
  sample: (side, round) => {
    const pid = idleShims.get(side)?.[round] ?? 0;
    return Promise.resolve([privateMemory(pid) / MIB, proportionalMemory(pid) / MIB]);
  },
};

const idle: Measure = single(
  { name: 'idle', what: 'processor while 100 containers sleep, of one core', unit: '%' },
  {
    topic: 'A crowd of containers',
    rounds: { full: 4, quick: 1 },
    prepare: async (side) => {
      await side.crowd(100);
      await delay(SETTLED);
    },
    sample: async ({ account }) => {
      const before = account.processorTime();
      const began = performance.now();
      await delay(WINDOW);
      return (100 * (account.processorTime() - before)) / (performance.now() - began);
    },
  },
);

/** In the order of their sizes, so that the crowd grows once. */
export const crowd: readonly Measure[] = [
  restart(0),
  memory(10),
  restart(30),
  shim,
  memory(50),
  memory(100),
  idle,
  { ...restart(100), tidy: async (side) => void (await side.crowd(0)) },
];
