import { randomBytes } from 'node:crypto';
import { LeasesDefinition, type Lease, type Resource } from '../proto/gen/containerd/services/leases.ts';
import { internal } from '../ttrpc/errors.ts';
import type { CallOptions, ServiceClient } from '../ttrpc/service.ts';
import type { Headers } from '../grpc/channel.ts';
import type { Connection } from './connection.ts';
import type { Labels } from './namespace.ts';

export type { Lease, Resource };

const EXPIRE_LABEL = 'containerd.io/gc.expire';

export interface LeaseOptions extends CallOptions {
  /** Default: a random one with the time in it. */
  readonly id?: string;
  readonly labels?: Labels;
  /** Milliseconds until the daemon may drop it. Default: it stays until it is deleted. */
  readonly expires?: number;
}

/** Leases keep what was made under them from the garbage collector. */
export class Leases {
  readonly #service: ServiceClient<typeof LeasesDefinition>;

  constructor(connection: Connection, headers: Headers) {
    this.#service = connection.service(LeasesDefinition, headers);
  }

  /** @throws RpcError AlreadyExists */
  async create(options: LeaseOptions = {}): Promise<Lease> {
    const { id = randomId(), labels = {}, expires, ...call } = options;
    const expiry =
      expires === undefined ? {} : { [EXPIRE_LABEL]: new Date(Date.now() + expires).toISOString() };
    const { lease } = await this.#service.create({ id, labels: { ...labels, ...expiry } }, call);
    if (lease === undefined) throw internal(`the daemon sent nothing of lease ${id}`);
    return lease;
  }

  /** @param filters alternatives; within one, commas mean and */
  async list(filters: readonly string[] = [], options?: CallOptions): Promise<Lease[]> {
    return (await this.#service.list({ filters: [...filters] }, options)).leases;
  }

  /** @param options `sync`: return when what it kept has been collected. @throws RpcError NotFound */
  async delete(id: string, options: CallOptions & { sync?: boolean } = {}): Promise<void> {
    const { sync = false, ...call } = options;
    await this.#service.delete({ id, sync }, call);
  }

  async resources(id: string, options?: CallOptions): Promise<Resource[]> {
    return (await this.#service.listResources({ id }, options)).resources;
  }

  async addResource(id: string, resource: Resource, options?: CallOptions): Promise<void> {
    await this.#service.addResource({ id, resource }, options);
  }

  async deleteResource(id: string, resource: Resource, options?: CallOptions): Promise<void> {
    await this.#service.deleteResource({ id, resource }, options);
  }
}

function randomId(): string {
  return `${Date.now()}-${randomBytes(4).toString('hex')}`;
}
