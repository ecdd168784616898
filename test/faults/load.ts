/** Many containers, at once and one after another: what they take, and what a daemon holds before and after. */
import { ContainersDefinition, type Container } from '../../proto/gen/containerd/services/containers.ts';
import { TasksDefinition } from '../../proto/gen/containerd/services/tasks.ts';
import { Connection } from '../../client/connection.ts';
import { Daemon } from '../harness/daemon.ts';
import { expectNothingLeft, holdings } from '../harness/leftovers.ts';
import { descriptors, privateMemory } from '../harness/processes.ts';

/** What a daemon has of the machine. */
export interface Weight {
  readonly megabytes: number;
  readonly descriptors: number;
}

export interface Load {
  /** Steps in their order, in milliseconds for all containers together. */
  readonly took: Readonly<Record<string, number>>;
  readonly before: Weight;
  /** While all were there; of cycles, after half of them. */
  readonly amid: Weight;
  readonly after: Weight;
}

/** Clients that are at work at once. */
const CLIENTS = 4;

/** Has so many containers run at once, and removes them. Fails when a call does, or when anything is left. */
export function manyAtOnce(count: number): Promise<Load> {
  return loaded(async (sailor, weigh, timed) => {
    const ids = Array.from({ length: count }, (_, index) => `c${index}`);
    await timed('start', () => each(ids, (id) => sailor.starts(id)));
    const amid = weigh();
    await timed('state', () => each(ids, (id) => sailor.isRunning(id)));
    await timed('end and delete', () => each(ids, (id) => sailor.ends(id)));
    return amid;
  });
}

/** Runs so many containers one after another, by as many clients as there always are. Fails as `manyAtOnce` does. */
export function manyCycles(count: number): Promise<Load> {
  return loaded(async (sailor, weigh, timed) => {
    const half = Array.from({ length: Math.ceil(count / 2) }, (_, index) => `c${index}`);
    const cycle = async (id: string) => {
      await sailor.starts(id);
      await sailor.ends(id);
    };
    await timed('first half', () => each(half, cycle));
    const amid = weigh();
    await timed('second half', () => each(half.slice(0, count - half.length), cycle));
    return amid;
  });
}

type Timed = (step: string, work: () => Promise<void>) => Promise<void>;

async function loaded(
  work: (sailor: Sailor, weigh: () => Weight, timed: Timed) => Promise<Weight>,
): Promise<Load> {
  await using daemon = await Daemon.start('moord');
  const ctr = daemon.ctr();
  using connection = new Connection(daemon.address);
  await ctr.create('template', ['/bin/sleep', '1000']);
  const sailor = await Sailor.like('template', connection, ctr.namespace);
  // What is opened once.
  for (let round = 0; round < 10; round += 1) {
    await sailor.starts('first');
    await sailor.ends('first');
  }
  const weigh = (): Weight => ({
    megabytes: Math.round(privateMemory(daemon.pid) / (1 << 20)),
    descriptors: descriptors(daemon.pid).length,
  });
  const held = holdings(daemon);
  const before = weigh();
  const took: Record<string, number> = {};
  const amid = await work(sailor, weigh, async (step, all) => {
    const began = performance.now();
    await all();
    took[step] = Math.round(performance.now() - began);
  });
  await expectNothingLeft(daemon, held, { within: 60_000 });
  return { took, before, amid, after: weigh() };
}

/** Does it for each, by several clients at once. */
async function each(ids: readonly string[], work: (id: string) => Promise<void>): Promise<void> {
  const left = [...ids];
  const client = async () => {
    for (let id = left.shift(); id !== undefined; id = left.shift()) await work(id);
  };
  await Promise.all(Array.from({ length: CLIENTS }, client));
}

/** Makes containers like one that it has seen. */
class Sailor {
  readonly #template: Container;
  readonly #containers;
  readonly #tasks;

  private constructor(template: Container, connection: Connection, namespace: string) {
    const headers = [['containerd-namespace', namespace]] as const;
    this.#template = template;
    this.#containers = connection.service(ContainersDefinition, headers);
    this.#tasks = connection.service(TasksDefinition, headers);
  }

  static async like(id: string, connection: Connection, namespace: string): Promise<Sailor> {
    const headers = [['containerd-namespace', namespace]] as const;
    const { container } = await connection.service(ContainersDefinition, headers).get({ id });
    if (container === undefined) throw new Error(`there is no container ${id}`);
    return new Sailor(container, connection, namespace);
  }

  async starts(id: string): Promise<void> {
    const spec = JSON.parse(Buffer.from(this.#template.spec?.value ?? []).toString()) as {
      linux: { cgroupsPath: string };
    };
    spec.linux.cgroupsPath = spec.linux.cgroupsPath.replace(this.#template.id, id);
    const typeUrl = this.#template.spec?.typeUrl ?? '';
    const value = Buffer.from(JSON.stringify(spec));
    await this.#containers.create({
      container: {
        ...this.#template,
        id,
        spec: { typeUrl, value },
        createdAt: undefined,
        updatedAt: undefined,
      },
    });
    await this.#tasks.create({ containerId: id });
    await this.#tasks.start({ containerId: id });
  }

  async isRunning(id: string): Promise<void> {
    const { process } = await this.#tasks.get({ containerId: id });
    if (process === undefined || process.pid === 0 || process.exitStatus !== 0)
      throw new Error(`${id} does not run`);
  }

  async ends(id: string): Promise<void> {
    const ended = this.#tasks.wait({ containerId: id });
    await this.#tasks.kill({ containerId: id, signal: 9 });
    const { exitStatus } = await ended;
    const { exitStatus: told } = await this.#tasks.delete({ containerId: id });
    await this.#containers.delete({ id });
    if (exitStatus !== 137 || told !== 137)
      throw new Error(`${id} was killed and ended with ${exitStatus}, ${told}`);
  }
}
