/** Many containers, at once and one after another: what they take, and what a daemon holds before and after. */
import { readFileSync } from 'node:fs';
import { Connection } from '../../client/connection.ts';
import { Daemon, isForking } from '../harness/daemon.ts';
import { expectNothingLeft, holdings } from '../harness/leftovers.ts';
import { freePort } from '../harness/port.ts';
import { commandLine, processOf } from '../harness/processes.ts';
import { eventually } from '../harness/wait.ts';
import { Sailor } from './sailor.ts';
import { type Weight, weigh, weighDaemon } from './weight.ts';

export interface Load {
  /** Steps in their order, in milliseconds for all containers together. */
  readonly took: Readonly<Record<string, number>>;
  /** In the order in which they were looked at. */
  readonly weights: Readonly<Record<string, Weight>>;
}

/** Clients that are at work at once. */
const CLIENTS = 4;
/** How often cycles and execs are interrupted to look. */
const LOOKS = 4;

/** MiB that a daemon at rest may have more than before: what it does not find worthwhile to hand back, and what it has learnt. */
const MORE = 16;
/** It looks at itself every 10 s. */
const RESTED = { within: 120_000 };

/** Has so many containers run at once, and removes them. Fails when a call does, or when anything is left. */
export function manyAtOnce(count: number): Promise<Load> {
  return loaded(async ({ sailor, look, timed }) => {
    const ids = Array.from({ length: count }, (_, index) => `c${index}`);
    await timed('start', () => each(ids, (id) => sailor.starts(id)));
    await look('amid');
    await timed('state', () => each(ids, (id) => sailor.isRunning(id)));
    await timed('end and delete', () => each(ids, (id) => sailor.ends(id)));
  });
}

/**
 * Runs so many containers one after another, by as many clients as there always are. The template is looked at where there is one.
 * Fails as `manyAtOnce` does, and when memory is kept.
 */
export function manyCycles(count: number): Promise<Load> {
  return loaded(async ({ sailor, look, timed, rests, templatePid }) => {
    const template = isForking ? await templatePid() : undefined;
    const lookAtTemplate = async (label: string) => {
      if (template !== undefined) await look(`the template ${label}`, template);
    };
    await lookAtTemplate('before');
    await inParts(count, async (label, ids) => {
      const cycle = async (id: string) => {
        await sailor.starts(id);
        await sailor.ends(id);
      };
      await timed(label, () => each(ids, cycle));
      await look(`the daemon ${label}`);
    });
    await lookAtTemplate('after');
    await rests();
  });
}

/** Runs so many processes in one container. Fails as `manyCycles` does. */
export function manyExecs(count: number): Promise<Load> {
  return loaded(async ({ sailor, look, timed, rests, daemon, namespace }) => {
    await sailor.starts('busy');
    const init = Number(readFileSync(`${daemon.bundle(namespace, 'busy')}/init.pid`, 'utf8'));
    const shim = processOf(init)?.parent ?? 0;
    await look('the shim before', shim);
    await inParts(count, async (label, ids) => {
      await timed(label, () => each(ids, (id) => sailor.executes('busy', id)));
      await look(`the shim ${label}`, shim);
    });
    await rests();
    await look('the shim at rest', shim);
    await sailor.ends('busy');
  });
}

interface Voyage {
  readonly daemon: Daemon;
  readonly namespace: string;
  readonly sailor: Sailor;
  /** Notes what the daemon holds, or the process with this pid. */
  readonly look: (label: string, pid?: number) => Promise<void>;
  readonly timed: (step: string, work: () => Promise<void>) => Promise<void>;
  /** Waits until the daemon has handed back what it has taken. */
  readonly rests: () => Promise<void>;
  /** Once there is one. */
  readonly templatePid: () => Promise<number>;
}

async function loaded(work: (voyage: Voyage) => Promise<void>): Promise<Load> {
  const metrics = `127.0.0.1:${await freePort()}`;
  await using daemon = await Daemon.start('moord', { config: `[metrics]\naddress = "${metrics}"\n` });
  const ctr = daemon.ctr();
  const { namespace } = ctr;
  using connection = new Connection(daemon.address);
  await ctr.create('template', ['/bin/sleep', '1000']);
  const sailor = await Sailor.like('template', connection, namespace);
  // What is opened once.
  for (let round = 0; round < 10; round += 1) {
    await sailor.starts('first');
    await sailor.ends('first');
  }
  const held = holdings(daemon);
  const took: Record<string, number> = {};
  const weights: Record<string, Weight> = {};
  const look = async (label: string, pid?: number) => {
    weights[label] = await (pid === undefined ? weighDaemon(daemon.pid, metrics) : weigh(pid));
  };
  const timed = async (step: string, all: () => Promise<void>) => {
    const began = performance.now();
    await all();
    took[step] = Math.round(performance.now() - began);
  };
  const templatePid = () =>
    eventually('there is a template', () =>
      daemon.shims().find((pid) => commandLine(pid).endsWith(' template')),
    );
  await look('the daemon before');
  const most = weights['the daemon before']!.private + MORE;
  const rests = async () => {
    await eventually('the daemon hands memory back', () => weigh(daemon.pid).private < most, RESTED);
  };
  await work({ daemon, namespace, sailor, look, timed, rests, templatePid });
  await expectNothingLeft(daemon, held, { within: 60_000 });
  await look('the daemon in the end');
  return { took, weights };
}

/** Does it part by part, each with a label and names of its own. */
async function inParts(
  count: number,
  work: (label: string, ids: readonly string[]) => Promise<void>,
): Promise<void> {
  for (let part = 0; part < LOOKS; part += 1) {
    const [from, to] = [part, part + 1].map((end) => Math.round((count * end) / LOOKS)) as [number, number];
    await work(
      `to ${to}`,
      Array.from({ length: to - from }, (_, index) => `c${from + index}`),
    );
  }
}

/** Does it for each, by several clients at once. */
async function each(ids: readonly string[], work: (id: string) => Promise<void>): Promise<void> {
  const left = [...ids];
  const client = async () => {
    for (let id = left.shift(); id !== undefined; id = left.shift()) await work(id);
  };
  await Promise.all(Array.from({ length: CLIENTS }, client));
}
