/** The nodes of a collection and what is reachable in them. */
import { backReferencesOf, isRoot, referencesOf } from './labels.ts';
import type { Facts, GcResource, Node, Reference } from './resource.ts';

/** A node's key as one text. None of the parts has a zero byte: metadata keys cannot. */
type Name = string;

interface Vertex {
  readonly resource: GcResource;
  readonly node: Node;
  /** What it refers to by itself. */
  needs: readonly Edge[];
  /** What its labels refer to. */
  labelled: readonly Edge[];
}

interface Edge {
  readonly to: Name;
  readonly flat: boolean;
}

const nameOf = (namespace: string, kind: string, id: string): Name => `${namespace}\0${kind}\0${id}`;

const edgesOf = (namespace: string, references: readonly Reference[]): Edge[] =>
  references.map(({ kind, id, flat = false }) => ({ to: nameOf(namespace, kind, id), flat }));

export class Graph {
  readonly #vertices = new Map<Name, Vertex>();
  /** What lives as long as a node does, by that node. */
  readonly #dependants = new Map<Name, Name[]>();
  readonly #marked = new Set<Name>();
  readonly #markedFlat = new Set<Name>();
  #gray: Edge[] = [];

  /** Adds a node as it is now, or takes note of its change. */
  add(resource: GcResource, node: Node, facts: Facts): void {
    const { namespace, kind, id } = node;
    const name = nameOf(namespace, kind, id);
    const needs = edgesOf(namespace, facts.references);
    const labelled = edgesOf(namespace, referencesOf(facts.labels));
    this.#vertices.set(name, { resource, node, needs, labelled });
    for (const { to } of edgesOf(namespace, backReferencesOf(facts.labels))) {
      const dependants = this.#dependants.get(to);
      if (dependants === undefined) this.#dependants.set(to, [name]);
      else dependants.push(name);
    }
    if (facts.root || isRoot(facts.labels)) this.#gray.push({ to: name, flat: false });
  }

  /** Adds a node that has been written since the collection began; it and all it refers to stay. */
  addLive(resource: GcResource, node: Node, facts: Facts): void {
    const name = nameOf(node.namespace, node.kind, node.id);
    // What it refers to may be new, so it is to be visited again.
    this.#marked.delete(name);
    this.#markedFlat.delete(name);
    this.add(resource, node, facts);
    this.#gray.push({ to: name, flat: false });
  }

  /**
   * Marks what is reachable from the nodes found to be alive, at most `steps` of them.
   *
   * @returns whether that was all
   */
  trace(steps = Infinity): boolean {
    for (let step = 0; step < steps; step += 1) {
      const edge = this.#gray.pop();
      if (edge === undefined) return true;
      this.#visit(edge);
    }
    return this.#gray.length === 0;
  }

  #visit({ to: name, flat }: Edge): void {
    const marked = flat ? this.#markedFlat : this.#marked;
    if (marked.has(name) || this.#marked.has(name)) return;
    marked.add(name);
    const vertex = this.#vertices.get(name);
    // Flatness goes on through what a node cannot be without: a leased snapshot's parents.
    for (const edge of vertex?.needs ?? []) this.#gray.push(flat ? { to: edge.to, flat } : edge);
    if (flat) return;
    if (vertex !== undefined) this.#gray.push(...vertex.labelled);
    for (const dependant of this.#dependants.get(name) ?? []) this.#gray.push({ to: dependant, flat: false });
  }

  isMarked({ namespace, kind, id }: Node): boolean {
    const name = nameOf(namespace, kind, id);
    return this.#marked.has(name) || this.#markedFlat.has(name);
  }

  /**
   * The nodes that nothing reaches, each before those that it refers to: a node whose references have been removed under it
   * could otherwise be named anew between two transactions, and would be there in part.
   */
  garbage(): { readonly resource: GcResource; readonly node: Node }[] {
    const white = new Map<Name, Vertex>();
    for (const [name, vertex] of this.#vertices) {
      if (vertex.resource.remove !== undefined && !this.isMarked(vertex.node)) white.set(name, vertex);
    }
    const referrers = new Map<Name, number>();
    for (const vertex of white.values()) {
      for (const { to } of [...vertex.needs, ...vertex.labelled]) {
        if (white.has(to)) referrers.set(to, (referrers.get(to) ?? 0) + 1);
      }
    }
    const sorted: Vertex[] = [];
    const free = [...white.keys()].filter((name) => !referrers.has(name));
    for (let name = free.pop(); name !== undefined; name = free.pop()) {
      const vertex = white.get(name)!;
      sorted.push(vertex);
      white.delete(name);
      for (const { to } of [...vertex.needs, ...vertex.labelled]) {
        const left = (referrers.get(to) ?? 0) - 1;
        referrers.set(to, left);
        if (left === 0 && white.has(to)) free.push(to);
      }
    }
    // What is left refers to itself in circles.
    return [...sorted, ...white.values()];
  }
}
