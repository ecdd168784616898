/** Clients at work while processes are killed, and afterwards the count of what is wrong. */
import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { ContainersDefinition } from '../../proto/gen/containerd/services/containers.ts';
import { Connection } from '../../client/connection.ts';
import { Daemon } from '../harness/daemon.ts';
import { holdings, list, type Holdings } from '../harness/leftovers.ts';
import { LocalRegistry } from '../harness/registry.ts';
import { choicesOf } from '../harness/seed.ts';
import { eventually } from '../harness/wait.ts';
import { Client, type Sea } from './client.ts';
import { Killer, type Kills } from './killer.ts';
import { type Findings, Ledger } from './ledger.ts';
import { cargoFor, endLeases, Porter } from './porter.ts';
import { Watcher } from './watcher.ts';

export interface StormOptions {
  readonly seed: number;
  readonly kills: Kills;
  /** Clients at once. */
  readonly clients: number;
  /** Clients that move images meanwhile, by a ctr that may be killed. */
  readonly porters?: number;
  /** Answers to clients between two kills at most. */
  readonly pause: number;
  readonly progress?: (what: string) => void;
  /** Where the daemon's log is copied to, to look for the cause of what was found. */
  readonly log?: string | undefined;
}

export interface Report extends Findings {
  readonly done: Killer['done'];
  readonly returns: readonly number[];
  /** Processes that clients started. */
  readonly processes: number;
  readonly events: number;
  /** Images that came and went, and commands about them that were begun anew. */
  readonly images: number;
  readonly repeated: number;
  /** What clients were told cannot be, as the shim or the runtime that it needed was killed. */
  readonly harmed: number;
  /** What they were told cannot be for no such reason. */
  readonly refused: string[];
  /** Calls that are stuck, and answers that make no sense. */
  readonly failures: string[];
  readonly left: string[];
}

const PERIOD = 60_000;

export async function storm({
  seed,
  kills,
  clients,
  porters: porterCount = 0,
  pause,
  progress,
  log,
}: StormOptions): Promise<Report> {
  await using daemon = await Daemon.start('moord');
  const ctr = daemon.ctr();
  const { namespace } = ctr;
  await ctr.create('template', ['/bin/true']);
  const ledger = new Ledger();
  const sea: Sea = {
    address: daemon.address,
    namespace,
    template: await templateOf(daemon, namespace),
    answers: 0,
    ledger,
  };
  const watchers = {
    prompt: new Watcher({ address: daemon.address, filters: [`namespace==${namespace}`], pause: 10 }),
    late: new Watcher({
      address: daemon.address,
      filters: [`namespace==${namespace},topic~="^/tasks/"`],
      pause: 700,
    }),
    plain: new Watcher({
      address: daemon.address,
      filters: [`namespace==${namespace},topic~="^/tasks/[a-z-]+$"`],
      pause: 10,
      plain: true,
    }),
  };
  await using registry = porterCount > 0 ? await LocalRegistry.start() : undefined;
  const porters: Porter[] = [];
  if (registry !== undefined) {
    for (let n = 0; n < porterCount; n += 1) {
      const cargo = await cargoFor(daemon, registry, ctr, `p${n}`);
      porters.push(new Porter(ctr, cargo, choicesOf(seed + 101 + n)));
    }
  }
  const before = await rested(daemon, sea);
  const choices = choicesOf(seed);
  const killer = new Killer({
    daemon,
    seed: choices,
    pause,
    struck: (id, target) => (target === 'runtime' ? ledger.balked : ledger.struck).add(id),
    answers: () => sea.answers,
    progress,
  });
  const over = new AbortController();
  const crew = Array.from(
    { length: clients },
    (_, index) => new Client(sea, `c${index}`, choicesOf(seed + 1 + index)),
  );
  const work = crew.map(async (client) => {
    while (!over.signal.aborted) await client.runsContainer();
  });
  const carrying = porters.map(async (porter) => {
    while (!over.signal.aborted) await porter.carries();
  });
  await killer.run(kills);
  over.abort();
  await Promise.all([...work, ...carrying]);
  if (porters.length > 0) await endLeases(ctr);
  for (const client of crew) client[Symbol.dispose]();
  await seesTheEnd(sea, Object.values(watchers));
  const left = await leftOf(daemon, before, namespace);
  for (const watcher of Object.values(watchers)) await watcher.close();
  if (log !== undefined) copyFileSync(daemon.log, log);
  const seen = new Map(Object.entries(watchers).map(([name, watcher]) => [name, watcher.seen]));
  return {
    ...ledger.judge(seen, new Set(['plain'])),
    done: killer.done,
    returns: killer.returns,
    processes: ledger.lives.length,
    events: watchers.prompt.seen.length,
    harmed: ledger.lives.filter((life) => life.refused).length - ledger.wronged.length,
    refused: ledger.wronged.map(({ name, refusal }) => `${name}: ${refusal}`),
    images: sum(porters.map(({ carried }) => carried)),
    repeated: sum(porters.map(({ repeated }) => repeated)),
    failures: [...crew, ...porters].flatMap((client) => client.failures),
    left,
  };
}

async function templateOf(daemon: Daemon, namespace: string) {
  using connection = new Connection(daemon.address);
  const containers = connection.service(ContainersDefinition, [['containerd-namespace', namespace]]);
  const { container } = await containers.get({ id: 'template' });
  await containers.delete({ id: 'template' });
  if (container === undefined) throw new Error('the template has no container');
  return container;
}

/** What is held by a daemon that has run a container. */
async function rested(daemon: Daemon, sea: Sea): Promise<Holdings> {
  using client = new Client({ ...sea, ledger: new Ledger() }, 'first', choicesOf(1));
  await client.runsContainer();
  await eventually('the shim template is there', () => daemon.shims().length > 0, { within: PERIOD });
  await eventually(
    'the first container is gone',
    () => ![...holdings(daemon)].some((name) => /^(?:bundle|cgroup)/.test(name)),
    {
      within: PERIOD,
    },
  );
  return holdings(daemon);
}

/** One more container: when a subscriber has seen its end, nothing from before is on its way any more. */
async function seesTheEnd(sea: Sea, watchers: readonly Watcher[]): Promise<void> {
  using client = new Client({ ...sea, ledger: new Ledger() }, 'last', choicesOf(1));
  await client.runsContainer();
  for (const watcher of watchers) {
    await watcher.sees(
      'the deletion of the last container',
      ({ topic, event }) => topic === '/tasks/delete' && Buffer.from(event?.value ?? []).includes('last-1'),
    );
  }
}

/** What is left of all that was made, after a while. */
async function leftOf(daemon: Daemon, before: Holdings, namespace: string): Promise<string[]> {
  const ctr = daemon.ctr(namespace);
  let left: string[] = [];
  const look = async () => {
    left = [...holdings(daemon)].filter((name) => !before.has(name));
    left.push(...[...(await ctr.tasks()).keys()].map((id) => `task ${id}`));
    for (const [kind, ...args] of [
      ['container', 'containers', 'ls', '-q'],
      ['snapshot', 'snapshots', 'ls'],
      ['blob', 'content', 'ls', '-q'],
      ['lease', 'leases', 'ls', '-q'],
    ] as const) {
      const lines = (await ctr.lines(...args)).filter((line) => line !== '' && !line.startsWith('KEY '));
      left.push(...lines.map((line) => `${kind} ${line}`));
    }
    left.push(...netns(daemon, namespace));
    return left.length === 0;
  };
  await eventually('nothing is left', look, { within: 30_000 }).catch(() => undefined);
  return left;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

/** The daemon's network namespaces: each is kept by a file. */
function netns({ state }: Daemon, namespace: string): string[] {
  return [join('netns', namespace), 'cri/netns'].flatMap((folder) =>
    list(join(state, folder)).map((name) => `network namespace ${folder}/${name}`),
  );
}
