/** A connection to one shim. */
import { SandboxDefinition } from '../../proto/gen/containerd/runtime/sandbox.ts';
import { TaskDefinition as TaskV2 } from '../../proto/gen/containerd/task/v2.ts';
import { TaskDefinition as TaskV3 } from '../../proto/gen/containerd/task/v3.ts';
import { ShimDefinition } from '../../proto/gen/moor/shim/v1.ts';
import { TtrpcClient } from '../../ttrpc/client.ts';
import type { CallOptions, ServiceClient } from '../../ttrpc/service.ts';
import type { Bootstrap } from './bootstrap.ts';

export type TaskClient = ServiceClient<typeof TaskV2>;

export type SandboxClient = ServiceClient<typeof SandboxDefinition>;

export class Shim {
  readonly bootstrap: Bootstrap;
  readonly task: TaskClient;
  /** Resolves when the connection is gone, whoever closed it. */
  readonly closed: Promise<void>;
  readonly #client: TtrpcClient;
  #lost = false;

  private constructor(client: TtrpcClient, bootstrap: Bootstrap) {
    this.#client = client;
    this.bootstrap = bootstrap;
    this.task = client.service(bootstrap.apiVersion === 3 ? TaskV3 : TaskV2);
    this.closed = client.closed.then(() => {
      this.#lost = true;
    });
  }

  /** @throws RpcError Unavailable when nobody listens at the address; ResourceExhausted when that cannot be found out now. */
  static async connect(bootstrap: Bootstrap, signal?: AbortSignal): Promise<Shim> {
    return new Shim(await TtrpcClient.connect(bootstrap.address, { signal }), bootstrap);
  }

  /** The connection is gone; calls that were under way have failed with Unavailable. */
  get lost(): boolean {
    return this.#lost;
  }

  /** Resolves when every event that Moor's own shim held at the time of the call has been acknowledged. */
  async flush(options: CallOptions): Promise<void> {
    await this.own.flush({}, options);
  }

  /** What only Moor's own shim does for its container. */
  get own(): ServiceClient<typeof ShimDefinition> {
    return this.#client.service(ShimDefinition);
  }

  /** The sandbox that it runs, where it does. */
  get sandbox(): SandboxClient {
    return this.#client.service(SandboxDefinition);
  }

  close(): void {
    this.#client.close();
  }
}
