/** A client of sandboxes, and a shim of another make that runs them. */
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { ContainersDefinition } from '../../proto/gen/containerd/services/containers.ts';
import { ControllerDefinition, StoreDefinition } from '../../proto/gen/containerd/services/sandbox.ts';
import { TasksDefinition } from '../../proto/gen/containerd/services/tasks.ts';
import type { Ctr } from './ctr.ts';
import type { Daemon } from './daemon.ts';
import type { Connection } from './rpc.ts';
import { sharedRootfs } from './rootfs.ts';

const program = resolve(import.meta.dirname, '../plugin/sandbox-shim.ts');
const SPEC = 'types.containerd.io/opencontainers/runtime-spec/1/Spec';
export const OWN_RUNTIME = 'io.containerd.runc.v2';

/** The stand-in of test/plugin, for one daemon. */
export class StandIn {
  /** Its path, as runtimes are named. */
  readonly binary: string;
  readonly #folder: string;

  constructor(daemon: Daemon) {
    this.#folder = join(daemon.directory, 'stand-in');
    mkdirSync(this.#folder);
    this.binary = join(this.#folder, 'shim');
    const command = [process.execPath, '--disable-warning=ExperimentalWarning', program, this.#folder];
    writeFileSync(this.binary, `#!/bin/sh\nexec ${command.join(' ')} "$@"\n`);
    chmodSync(this.binary, 0o755);
  }

  /** What its shims have been asked, a line each. */
  get calls(): string[] {
    const file = join(this.#folder, 'calls');
    return existsSync(file) ? readFileSync(file, 'utf8').split('\n').filter(Boolean) : [];
  }
}

/** One namespace's sandboxes, through a connection that outlives daemons. */
export class SandboxClient implements Disposable {
  readonly namespace: string;
  readonly #connection: Connection;

  constructor(daemon: Daemon, { namespace }: Ctr) {
    this.namespace = namespace;
    this.#connection = daemon.connect();
  }

  get store() {
    return this.#connection.service(StoreDefinition, this.namespace);
  }

  get controller() {
    return this.#connection.service(ControllerDefinition, this.namespace);
  }

  get tasks() {
    return this.#connection.service(TasksDefinition, this.namespace);
  }

  /** Makes a sandbox by the controller `shim`, without a record in the store. */
  async create(sandboxId: string, runtime: string, annotations: Record<string, string> = {}): Promise<void> {
    const sandbox = { sandboxId, runtime: { name: runtime }, sandboxer: 'shim' };
    await this.controller.create({ sandboxId, sandbox, sandboxer: 'shim', annotations });
  }

  async start(sandboxId: string) {
    return this.controller.start({ sandboxId, sandboxer: 'shim' });
  }

  async status(sandboxId: string, sandboxer = 'shim') {
    return this.controller.status({ sandboxId, sandboxer, verbose: true });
  }

  async wait(sandboxId: string, sandboxer = 'shim') {
    return this.controller.wait({ sandboxId, sandboxer }, { timeout: 120_000 });
  }

  async stop(sandboxId: string, timeoutSecs = 0): Promise<void> {
    await this.controller.stop({ sandboxId, sandboxer: 'shim', timeoutSecs });
  }

  async shutdown(sandboxId: string): Promise<void> {
    await this.controller.shutdown({ sandboxId, sandboxer: 'shim' });
  }

  /** A container of a sandbox on the shared root file system, with its task; returns the pid it runs as. */
  async run(id: string, sandbox: string, runtime: string, args: readonly string[]): Promise<number> {
    const spec = {
      ociVersion: '1.0.2',
      process: { args, cwd: '/', user: { uid: 0, gid: 0 }, env: ['PATH=/bin'] },
      root: { path: sharedRootfs() },
      mounts: [{ destination: '/proc', type: 'proc', source: 'proc' }],
      linux: {
        cgroupsPath: `/${this.namespace}/${id}`,
        namespaces: ['pid', 'mount', 'ipc', 'uts'].map((type) => ({ type })),
      },
    };
    const containers = this.#connection.service(ContainersDefinition, this.namespace);
    await containers.create({
      container: {
        id,
        sandbox,
        runtime: { name: runtime },
        spec: { typeUrl: SPEC, value: Buffer.from(JSON.stringify(spec)) },
      },
    });
    await this.tasks.create({ containerId: id });
    return (await this.tasks.start({ containerId: id })).pid;
  }

  [Symbol.dispose](): void {
    this.#connection[Symbol.dispose]();
  }
}
