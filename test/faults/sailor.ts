/** A client that makes containers like one that it has seen, through the API alone. */
import { ContainersDefinition, type Container } from '../../proto/gen/containerd/services/containers.ts';
import { TasksDefinition } from '../../proto/gen/containerd/services/tasks.ts';
import type { Connection } from '../../client/connection.ts';

const PROCESS_TYPE = 'types.containerd.io/opencontainers/runtime-spec/1/Process';
const PROCESS = Buffer.from(
  JSON.stringify({ args: ['/bin/true'], cwd: '/', env: [], user: { uid: 0, gid: 0 } }),
);

export class Sailor {
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

  /** A process more in a container, that ends at once. */
  async executes(id: string, execId: string): Promise<void> {
    const call = { containerId: id, execId };
    await this.#tasks.exec({ ...call, spec: { typeUrl: PROCESS_TYPE, value: PROCESS } });
    const ended = this.#tasks.wait(call);
    await this.#tasks.start(call);
    const { exitStatus } = await ended;
    await this.#tasks.deleteProcess(call);
    if (exitStatus !== 0) throw new Error(`${execId} of ${id} ended with ${exitStatus}`);
  }
}
