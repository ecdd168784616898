/** What one client among many does: a round of calls on every service, each answer checked, some of them left in the middle. */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { Connection } from '../../client/connection.ts';
import { type Container, ContainersDefinition } from '../../proto/gen/containerd/services/containers.ts';
import {
  ContentDefinition,
  WriteAction,
  type WriteContentRequest,
} from '../../proto/gen/containerd/services/content.ts';
import { DiffDefinition } from '../../proto/gen/containerd/services/diff.ts';
import { EventsDefinition } from '../../proto/gen/containerd/services/events.ts';
import { ImagesDefinition } from '../../proto/gen/containerd/services/images.ts';
import { IntrospectionDefinition } from '../../proto/gen/containerd/services/introspection.ts';
import { LeasesDefinition } from '../../proto/gen/containerd/services/leases.ts';
import { NamespacesDefinition } from '../../proto/gen/containerd/services/namespaces.ts';
import { Kind, SnapshotsDefinition } from '../../proto/gen/containerd/services/snapshots.ts';
import { TasksDefinition } from '../../proto/gen/containerd/services/tasks.ts';
import { VersionDefinition } from '../../proto/gen/containerd/services/version.ts';
import { Status } from '../../proto/gen/containerd/types/task.ts';
import { Code } from '../../ttrpc/errors.ts';
import type { ServiceClient, ServiceDefinition } from '../../ttrpc/service.ts';
import { eventually, soon } from './wait.ts';

const SNAPSHOTTER = 'overlayfs';
const LAYER = 'application/vnd.oci.image.layer.v1.tar';
/** The type of an exec's spec. */
export const PROCESS = 'types.containerd.io/opencontainers/runtime-spec/1/Process';

/** A client with a connection of its own, which it may lose and make again. */
export class Journey implements Disposable {
  /** Calls made so far, those that were left among them. */
  calls = 0;
  readonly #address: string;
  readonly #namespace: string;
  readonly #name: string;
  #connection: Connection;
  #lease = '';

  /** @param name no other client of the namespace has it, nor one that contains it */
  constructor(address: string, namespace: string, name: string) {
    this.#address = address;
    this.#namespace = namespace;
    this.#name = name;
    this.#connection = new Connection(address);
  }

  [Symbol.dispose](): void {
    this.#connection.close();
  }

  #service<S extends ServiceDefinition>(definition: S): ServiceClient<S> {
    const headers: [string, string][] = [['containerd-namespace', this.#namespace]];
    if (this.#lease !== '') headers.push(['containerd-lease', this.#lease]);
    const functions = this.#connection.service(definition, headers);
    return new Proxy(functions, {
      get: (target, key: string) => {
        this.calls += 1;
        return target[key];
      },
    });
  }

  /** Small questions whose answers are known. */
  async asks(): Promise<void> {
    assert.notEqual((await this.#service(VersionDefinition).version({})).version, '');
    const { namespaces } = await this.#service(NamespacesDefinition).list({});
    assert.ok(namespaces.some(({ name }) => name === this.#namespace));
    const filters = [`type==io.containerd.snapshotter.v1,id==${SNAPSHOTTER}`];
    assert.equal((await this.#service(IntrospectionDefinition).plugins({ filters })).plugins.length, 1);
    await rejects(this.#service(ContainersDefinition).get({ id: 'nobody' }), Code.NotFound);
    await rejects(this.#service(ImagesDefinition).get({ name: '' }), Code.NotFound, Code.InvalidArgument);
  }

  /** Writes a blob under a lease, reads it whole and in part, makes an image of it, and removes both. */
  async storesImage(): Promise<void> {
    const id = await this.#takesLease();
    const data = randomBytes(100_000);
    const digest = digestOf(data);
    await this.#writes(`ref-${this.#name}`, data, digest);
    const content = this.#service(ContentDefinition);
    const read = await Array.fromAsync(content.read({ digest, offset: 10n, size: 0n }));
    assert.deepEqual(Buffer.concat(read.map((part) => part.data)), data.subarray(10));
    assert.equal((await content.info({ digest })).info?.size, BigInt(data.length));
    const { resources } = await this.#service(LeasesDefinition).listResources({ id });
    assert.deepEqual(resources, [{ id: digest, type: 'content' }]);
    const images = this.#service(ImagesDefinition);
    const name = `registry.invalid/${this.#name}:1`;
    const target = { mediaType: 'application/octet-stream', digest, size: BigInt(data.length) };
    assert.equal((await images.create({ image: { name, target } })).image?.name, name);
    await rejects(this.#service(ImagesDefinition).create({ image: { name, target } }), Code.AlreadyExists);
    const { images: listed } = await this.#service(ImagesDefinition).list({ filters: [`name==${name}`] });
    assert.deepEqual(
      listed.map((image) => image.target?.digest),
      [digest],
    );
    await this.#service(ImagesDefinition).delete({ name });
    await this.#leavesLease();
    await this.#service(ContentDefinition).delete({ digest }).catch(expected(Code.NotFound));
  }

  async #takesLease(): Promise<string> {
    const id = `lease-${this.#name}`;
    await this.#service(LeasesDefinition).create({ id, labels: { client: this.#name } });
    this.#lease = id;
    return id;
  }

  async #leavesLease(): Promise<void> {
    const id = this.#lease;
    this.#lease = '';
    await this.#service(LeasesDefinition).delete({ id });
  }

  async #writes(ref: string, data: Buffer, expected: string): Promise<void> {
    const half = data.length / 2;
    const total = BigInt(data.length);
    async function* messages(): AsyncGenerator<Partial<WriteContentRequest>> {
      yield { action: WriteAction.WRITE, ref, total, expected, offset: 0n, data: data.subarray(0, half) };
      yield { action: WriteAction.WRITE, ref, offset: BigInt(half), data: data.subarray(half) };
      yield { action: WriteAction.COMMIT, ref, total, expected, offset: total };
    }
    const answers = await Array.fromAsync(this.#service(ContentDefinition).write(messages()));
    assert.deepEqual(
      answers.map(({ offset }) => Number(offset)),
      [half, data.length, data.length],
    );
    assert.equal(answers[2]?.digest, expected);
  }

  /** A snapshot on a snapshot, and the layer between them if asked. */
  async makesSnapshots({ diff }: { readonly diff: boolean }): Promise<void> {
    const snapshots = () => this.#service(SnapshotsDefinition);
    const [base, top] = [`base-${this.#name}`, `top-${this.#name}`];
    const at = { snapshotter: SNAPSHOTTER };
    // Kept from a collection that another client starts.
    const labels = { 'containerd.io/gc.root': 'now' };
    await snapshots().prepare({ ...at, key: `${base}-work`, labels });
    await snapshots().commit({ ...at, key: `${base}-work`, name: base, labels });
    const { mounts } = await snapshots().prepare({ ...at, key: top, parent: base, labels });
    assert.equal(mounts.length, 1);
    const { info } = await snapshots().stat({ ...at, key: top });
    assert.equal(info?.kind, Kind.ACTIVE);
    assert.equal(info?.parent, base);
    if (diff) {
      const { mounts: left } = await snapshots().view({ ...at, key: `${top}-view`, parent: base, labels });
      const ref = `diff-${this.#name}`;
      // Without it another client's collection takes the layer as soon as it is there.
      await this.#takesLease();
      const made = await this.#service(DiffDefinition).diff({ left, right: mounts, mediaType: LAYER, ref });
      assert.match(made.diff?.digest ?? '', /^sha256:/);
      await this.#leavesLease();
      await snapshots().remove({ ...at, key: `${top}-view` });
    }
    await rejects(snapshots().remove({ ...at, key: base }), Code.FailedPrecondition);
    await snapshots().remove({ ...at, key: top });
    await snapshots().remove({ ...at, key: base });
  }

  /** A container's whole life with an exec in it, as its events tell it too. */
  async runsContainer(template: Container): Promise<void> {
    const id = `c-${this.#name}`;
    const over = new AbortController();
    const filters = [`topic~="^/tasks/",namespace==${this.#namespace}`];
    const subscription = this.#service(EventsDefinition).subscribe({ filters }, { signal: over.signal });
    const topics: string[] = [];
    const told = (async () => {
      for await (const { topic, event } of subscription) {
        // The id is a field of every event's, so its bytes are in it.
        if (Buffer.from(event?.value ?? []).includes(id)) topics.push(topic);
        if (topic === '/tasks/delete' && topics.at(-1) === topic) break;
      }
    })();
    try {
      const container = { ...template, id, createdAt: undefined, updatedAt: undefined };
      await this.#service(ContainersDefinition).create({ container });
      const tasks = () => this.#service(TasksDefinition);
      const { pid } = await tasks().create({ containerId: id });
      assert.equal((await tasks().start({ containerId: id })).pid, pid);
      assert.equal((await tasks().get({ containerId: id })).process?.status, Status.RUNNING);
      await this.#execs(id);
      await rejects(tasks().delete({ containerId: id }), Code.FailedPrecondition);
      await rejects(tasks().wait({ containerId: id }, { timeout: 30 }), Code.DeadlineExceeded);
      const left = new AbortController();
      const wait = tasks().wait({ containerId: id }, { signal: left.signal });
      left.abort();
      await rejects(wait, Code.Cancelled);
      const exited = tasks().wait({ containerId: id });
      await tasks().kill({ containerId: id, signal: 9 });
      assert.equal((await exited).exitStatus, 137);
      assert.equal((await tasks().delete({ containerId: id })).exitStatus, 137);
      await this.#service(ContainersDefinition).delete({ id });
      await soon(`the events of ${id}`, told, { within: 60_000 });
    } finally {
      over.abort();
      await told.catch(() => undefined);
    }
    const life = ['create', 'start', 'exec-added', 'exec-started', 'exit', 'exit', 'delete'];
    assert.deepEqual(
      topics,
      life.map((name) => `/tasks/${name}`),
    );
  }

  async #execs(containerId: string): Promise<void> {
    const execId = 'side';
    const tasks = () => this.#service(TasksDefinition);
    const process = { args: ['/bin/sh', '-c', 'exit 7'], cwd: '/', env: [], user: { uid: 0, gid: 0 } };
    const spec = { typeUrl: PROCESS, value: Buffer.from(JSON.stringify(process)) };
    await tasks().exec({ containerId, execId, spec });
    const exited = tasks().wait({ containerId, execId });
    await tasks().start({ containerId, execId });
    assert.equal((await exited).exitStatus, 7);
    assert.equal((await tasks().deleteProcess({ containerId, execId })).exitStatus, 7);
  }

  /** Leaves a write in the middle, by a reset or with the whole connection; what was begun is there and can be removed. */
  async leavesWrite({ how }: { readonly how: 'reset' | 'connection' }): Promise<void> {
    const ref = `left-${this.#name}`;
    const left = new AbortController();
    async function* messages(): AsyncGenerator<Partial<WriteContentRequest>> {
      yield { action: WriteAction.WRITE, ref, offset: 0n, data: Buffer.alloc(5000, 1) };
      await new Promise((resolve) => {
        left.signal.addEventListener('abort', resolve);
      });
    }
    const answers = this.#service(ContentDefinition).write(messages(), { signal: left.signal });
    const first = answers[Symbol.asyncIterator]();
    assert.equal((await first.next()).value?.offset, 5000n);
    const rest = first.next();
    if (how === 'connection') this.#loseConnection();
    left.abort();
    await rejects(rest, Code.Cancelled, Code.Unavailable);
    // The daemon may not have noticed yet, and holds the ref until it has.
    await eventually('the ingest can be removed', async () => {
      await this.#service(ContentDefinition).abort({ ref });
      return true;
    });
  }

  #loseConnection(): void {
    this.#connection.close();
    this.#connection = new Connection(this.#address);
  }

  /** Reads some of a blob and leaves; then with many calls under way leaves them all. */
  async leavesReads(digest: string): Promise<void> {
    const read = () => this.#service(ContentDefinition).read({ digest, offset: 0n, size: 0n });
    for await (const { data } of read()) {
      assert.ok(data.length > 0);
      break;
    }
    const pending = Array.from({ length: 4 }, () => Array.fromAsync(read()));
    const quick = this.#service(VersionDefinition).version({});
    this.#loseConnection();
    for (const call of [...pending, quick]) await call.catch(expected(Code.Cancelled, Code.Unavailable));
  }
}

export function digestOf(data: Uint8Array): string {
  return `sha256:${createHash('sha256').update(data).digest('hex')}`;
}

function expected(...codes: Code[]): (error: unknown) => void {
  return (error) => {
    if (!codes.includes((error as { code: Code }).code)) throw error;
  };
}

async function rejects(call: Promise<unknown>, ...codes: Code[]): Promise<void> {
  await assert.rejects(call, (error: { code: Code }) => {
    assert.ok(codes.includes(error.code), `code ${error.code}, of none of ${codes.join(' ')}`);
    return true;
  });
}
