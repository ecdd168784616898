import { notFound } from '../ttrpc/errors.ts';
import type { Container } from './container.ts';
import type { Sandbox } from './sandbox.ts';

/** The place for what a shim has: one container; or a sandbox, and then as many as belong to it. */
export class Berth {
  /** From its creation on; the shim ends with it. */
  sandbox: Sandbox | undefined;
  readonly #containers = new Map<string, Container>();

  get containers(): readonly Container[] {
    return [...this.#containers.values()];
  }

  /** The one that is in the way of another with that id. */
  occupant(id: string): Container | undefined {
    return this.#containers.get(id) ?? (this.sandbox === undefined ? this.containers[0] : undefined);
  }

  /** @throws RpcError NotFound */
  demand(id: string): Container {
    const container = this.#containers.get(id);
    if (container === undefined) throw notFound(`container not created: ${id}`);
    return container;
  }

  add(container: Container): void {
    this.#containers.set(container.id, container);
  }

  remove(container: Container): void {
    if (this.#containers.get(container.id) === container) this.#containers.delete(container.id);
  }
}
