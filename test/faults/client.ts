/** A client in the storm: containers with execs, pauses and known ends, each call made until it is answered. */
import { Connection } from '../../client/connection.ts';
import { type Container, ContainersDefinition } from '../../proto/gen/containerd/services/containers.ts';
import { TasksDefinition } from '../../proto/gen/containerd/services/tasks.ts';
import { Status } from '../../proto/gen/containerd/types/task.ts';
import { Code, RpcError } from '../../ttrpc/errors.ts';
import type { ServiceClient } from '../../ttrpc/service.ts';
import type { Seed } from '../harness/seed.ts';
import type { Ledger, Life } from './ledger.ts';
import { type Outcome, persist, Stuck } from './persistence.ts';

const SPEC = 'types.containerd.io/opencontainers/runtime-spec/1/Spec';
const PROCESS = 'types.containerd.io/opencontainers/runtime-spec/1/Process';
const [SIGKILL, SIGTERM] = [9, 15];

/** Milliseconds between signals for a program that may not have heard the last one yet. */
const KNOCK = 250;

/** What the clients of a storm share. */
export interface Sea {
  readonly address: string;
  readonly namespace: string;
  /** What containers are made of. */
  readonly template: Container;
  readonly ledger: Ledger;
  /** Calls that have been answered. */
  answers: number;
}

export class Client implements Disposable {
  /** Calls that got no answer, and answers that make no sense. */
  readonly failures: string[] = [];
  readonly #sea: Sea;
  readonly #name: string;
  readonly #seed: Seed;
  readonly #connection: Connection;
  readonly #containers: ServiceClient<typeof ContainersDefinition>;
  readonly #tasks: ServiceClient<typeof TasksDefinition>;
  #count = 0;

  /** @param name no other client has it */
  constructor(sea: Sea, name: string, seed: Seed) {
    this.#sea = sea;
    this.#name = name;
    this.#seed = seed;
    this.#connection = new Connection(sea.address);
    const headers = [['containerd-namespace', sea.namespace]] as const;
    this.#containers = this.#connection.service(ContainersDefinition, headers);
    this.#tasks = this.#connection.service(TasksDefinition, headers);
  }

  [Symbol.dispose](): void {
    this.#connection.close();
  }

  /** Runs one container from its creation to its deletion. */
  async runsContainer(): Promise<void> {
    this.#count += 1;
    const id = `${this.#name}-${this.#count}`;
    const code = 1 + Math.floor(this.#seed.next(100));
    const life = this.#sea.ledger.begin(id, '', code);
    try {
      const kind = this.#seed.pick(['short', 'short', 'execs', 'execs', 'paused'] as const);
      await this.#createContainer(id, programOf(kind, code, this.#seed));
      await this.#runs(life, kind);
    } catch (error) {
      this.#failed(life, error);
    }
    await this.#removes(life);
  }

  async #runs(life: Life, kind: 'short' | 'execs' | 'paused'): Promise<void> {
    const { container: containerId, told } = life;
    await this.#persist(
      `create ${containerId}`,
      (timeout) => this.#tasks.create({ containerId }, { timeout }),
      {
        [Code.AlreadyExists]: () => ({ containerId, pid: 0 }),
      },
    );
    await this.#starts(life);
    const waited = this.#waits(life);
    // What fails it is met below, unless something else does before.
    waited.catch(() => undefined);
    if (kind === 'execs') {
      const execs = 1 + Math.floor(this.#seed.next(3));
      for (let n = 0; n < execs; n += 1) await this.#execs(containerId, `e${n}`);
    }
    if (kind === 'paused') await this.#pauses(containerId);
    if (kind !== 'short') await this.#ends(containerId, SIGTERM, waited);
    told.wait = await waited;
    const { value } = await this.#persist(`state of ${containerId}`, (timeout) =>
      this.#tasks.get({ containerId }, { timeout }),
    );
    if (value.process?.status === Status.STOPPED) told.state = value.process.exitStatus;
  }

  async #createContainer(id: string, args: readonly string[]): Promise<void> {
    const { template } = this.#sea;
    const spec = JSON.parse(Buffer.from(template.spec?.value ?? []).toString()) as {
      process: { args: readonly string[] };
      linux: { cgroupsPath?: string };
    };
    spec.process.args = args;
    spec.linux.cgroupsPath = `/${this.#sea.namespace}/${id}`;
    const container = {
      ...template,
      id,
      spec: { typeUrl: SPEC, value: Buffer.from(JSON.stringify(spec)) },
      createdAt: undefined,
      updatedAt: undefined,
    };
    await this.#persist<unknown>(
      `container ${id}`,
      (timeout) => this.#containers.create({ container }, { timeout }),
      {
        [Code.AlreadyExists]: () => undefined,
      },
    );
  }

  async #starts({ container: containerId, exec: execId, name }: Life): Promise<void> {
    await this.#persist(
      `start ${name}`,
      (timeout) => this.#tasks.start({ containerId, execId }, { timeout }),
      {
        // It has been started, and may be over; unless its shim was killed, when nobody can say.
        [Code.FailedPrecondition]: (error) => {
          if (this.#sea.ledger.struck.has(containerId)) throw error;
          return { pid: 0 };
        },
      },
    );
  }

  async #waits({ container: containerId, exec: execId, name }: Life): Promise<number> {
    const { value } = await this.#persist(`wait for ${name}`, (timeout) =>
      this.#tasks.wait({ containerId, execId }, { timeout }),
    );
    return value.exitStatus;
  }

  /** Adds a process to a container, and sees it to its end. */
  async #execs(containerId: string, execId: string): Promise<void> {
    const code = 101 + Math.floor(this.#seed.next(20));
    const life = this.#sea.ledger.begin(containerId, execId, code);
    const sleep = this.#seed.pick(['', 'sleep 0.05; ', 'sleep 0.2; ']);
    const process = {
      args: ['/bin/sh', '-c', `${sleep}exit ${code}`],
      cwd: '/',
      env: ['PATH=/bin'],
      user: { uid: 0, gid: 0 },
    };
    const spec = { typeUrl: PROCESS, value: Buffer.from(JSON.stringify(process)) };
    try {
      await this.#persist(
        `exec ${life.name}`,
        (timeout) => this.#tasks.exec({ containerId, execId, spec }, { timeout }),
        {
          [Code.AlreadyExists]: () => ({}),
        },
      );
      await this.#starts(life);
      life.told.wait = await this.#waits(life);
    } catch (error) {
      this.#failed(life, error);
    }
    try {
      const { value } = await this.#persist(`delete ${life.name}`, (timeout) =>
        this.#tasks.deleteProcess({ containerId, execId }, { timeout }),
      );
      if (!life.refused) life.told.delete = value.exitStatus;
    } catch (error) {
      if (!life.refused) this.#failed(life, error);
    }
  }

  async #pauses(containerId: string): Promise<void> {
    const settled = { [Code.FailedPrecondition]: () => ({}) };
    await this.#persist(
      `pause ${containerId}`,
      (timeout) => this.#tasks.pause({ containerId }, { timeout }),
      settled,
    );
    await this.#persist(
      `resume ${containerId}`,
      (timeout) => this.#tasks.resume({ containerId }, { timeout }),
      settled,
    );
  }

  /** Signals the first process until it has ended: it may not have been listening yet. */
  async #ends(containerId: string, signal: number, waited: Promise<unknown>): Promise<void> {
    const over = waited.then(
      () => true,
      () => true,
    );
    for (;;) {
      try {
        await this.#persist(`kill ${containerId}`, (timeout) =>
          this.#tasks.kill({ containerId, signal }, { timeout }),
        );
      } catch (error) {
        if (!(error instanceof RpcError) || error.code !== Code.NotFound) throw error;
      }
      const { promise, resolve } = Promise.withResolvers<boolean>();
      const timer = setTimeout(() => resolve(false), KNOCK);
      if (await Promise.race([over, promise])) {
        clearTimeout(timer);
        return;
      }
    }
  }

  async #persist<T>(...call: Parameters<typeof persist<T>>): Promise<Outcome<T>> {
    const outcome = await persist(...call);
    this.#sea.answers += 1;
    return outcome;
  }

  /** Whatever has become of it, nothing is to be left. */
  async #removes(life: Life): Promise<void> {
    const { container: containerId, told } = life;
    try {
      if (life.refused) await this.#kills(life);
      const { value } = await this.#persist<{ exitStatus: number } | undefined>(
        `delete ${containerId}`,
        (timeout) => this.#tasks.delete({ containerId }, { timeout }),
      );
      if (!life.refused) told.delete = value?.exitStatus;
    } catch (error) {
      const isGone = error instanceof RpcError && error.code === Code.NotFound;
      if (!(isGone && life.refused)) this.#failed(life, error);
    }
    try {
      await this.#persist(
        `container ${containerId}`,
        (timeout) => this.#containers.delete({ id: containerId }, { timeout }),
        {
          [Code.NotFound]: () => ({}),
        },
      );
    } catch (error) {
      this.failures.push(`container ${containerId} cannot be removed: ${String(error)}`);
    }
  }

  /** Ends a task that is in whatever state. */
  async #kills({ container: containerId }: Life): Promise<void> {
    try {
      const { value } = await this.#persist(`state of ${containerId}`, (timeout) =>
        this.#tasks.get({ containerId }, { timeout }),
      );
      const status = value.process?.status;
      if (status !== Status.RUNNING && status !== Status.PAUSED) return;
      const waited = this.#persist(`wait for ${containerId}`, (timeout) =>
        this.#tasks.wait({ containerId }, { timeout }),
      );
      await this.#ends(containerId, SIGKILL, waited);
      await waited.catch(() => undefined);
    } catch (error) {
      if (!(error instanceof RpcError)) throw error;
    }
  }

  #failed(life: Life, error: unknown): void {
    if (error instanceof Stuck || !(error instanceof RpcError)) {
      this.failures.push(`${life.name}: ${String(error)}`);
    }
    life.refused = true;
    life.refusal = String(error);
  }
}

/** Ends by itself, or when it is told to, with the code. */
function programOf(kind: 'short' | 'execs' | 'paused', code: number, seed: Seed): string[] {
  const text =
    kind === 'short'
      ? `${seed.pick(['', 'sleep 0.05; ', 'sleep 0.3; '])}exit ${code}`
      : `trap "exit ${code}" TERM; sleep 1000 & wait`;
  return ['/bin/sh', '-c', text];
}
