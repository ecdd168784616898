import { NamespacesDefinition, type Namespace } from '../proto/gen/containerd/services/namespaces.ts';
import { internal } from '../ttrpc/errors.ts';
import type { CallOptions, ServiceClient } from '../ttrpc/service.ts';
import type { Headers } from '../grpc/channel.ts';
import type { Connection } from './connection.ts';

export type { Namespace };

/** Labels by key. */
export type Labels = { readonly [key: string]: string };

/** The daemon's namespaces: worlds of containers that do not see each other. */
export class Namespaces {
  readonly #service: ServiceClient<typeof NamespacesDefinition>;

  /** containerd's daemon wants a namespace to publish the events of these calls in. */
  constructor(connection: Connection, headers: Headers) {
    this.#service = connection.service(NamespacesDefinition, headers);
  }

  /** @throws RpcError AlreadyExists, InvalidArgument for a malformed name */
  async create(name: string, labels: Labels = {}, options?: CallOptions): Promise<Namespace> {
    const answer = await this.#service.create({ namespace: { name, labels } }, options);
    return present(answer.namespace, name);
  }

  /** @throws RpcError NotFound */
  async get(name: string, options?: CallOptions): Promise<Namespace> {
    return present((await this.#service.get({ name }, options)).namespace, name);
  }

  async list(filter = '', options?: CallOptions): Promise<Namespace[]> {
    return (await this.#service.list({ filter }, options)).namespaces;
  }

  /** Sets the given labels and leaves the others; an empty value clears one. */
  async label(name: string, labels: Labels, options?: CallOptions): Promise<Namespace> {
    const updateMask = Object.keys(labels).map((key) => `labels.${key}`);
    const answer = await this.#service.update({ namespace: { name, labels }, updateMask }, options);
    return present(answer.namespace, name);
  }

  /** @throws RpcError NotFound, FailedPrecondition when something is in it */
  async delete(name: string, options?: CallOptions): Promise<void> {
    await this.#service.delete({ name }, options);
  }
}

function present(namespace: Namespace | undefined, name: string): Namespace {
  if (namespace === undefined) throw internal(`the daemon sent nothing of namespace ${name}`);
  return namespace;
}
