import type { DiffRequest } from '../../proto/gen/containerd/services/diff.ts';
import type { Descriptor } from '../../proto/gen/containerd/types/descriptor.ts';
import type { Mount } from '../../proto/gen/containerd/types/mount.ts';
import { Code, isCode, unimplemented } from '../../ttrpc/errors.ts';
import type { Applied } from './differ.ts';
import type { ApplyPurpose, DiffPurpose, LayerDiffer } from './layer-differ.ts';

/** A differ that a layer goes to when it is unpacked onto a snapshotter. */
export interface Preference {
  readonly snapshotter: string;
  readonly differ: string;
}

/** Several differs in the order in which they are asked: what one does not know is left to the next. */
export class Differs implements LayerDiffer {
  readonly name = 'differs';
  readonly #all: ReadonlyMap<string, LayerDiffer>;
  readonly #order: readonly LayerDiffer[];
  readonly #preferences: readonly Preference[];

  /** @throws Error for a name that no differ has */
  constructor(
    all: readonly LayerDiffer[],
    order: readonly string[],
    preferences: readonly Preference[] = [],
  ) {
    this.#all = new Map(all.map((differ) => [differ.name, differ]));
    this.#order = order.map((name) => this.#get(name));
    this.#preferences = preferences.filter(({ differ }) => differ !== '');
    for (const { differ } of this.#preferences) this.#get(differ);
  }

  /** The differ for what is unpacked onto a snapshotter. */
  onto(snapshotter: string): LayerDiffer {
    const preference = this.#preferences.find((each) => each.snapshotter === snapshotter);
    return preference === undefined ? this : this.#get(preference.differ);
  }

  apply(layer: Descriptor, mounts: readonly Mount[], purpose: ApplyPurpose): Promise<Applied> {
    return this.#first((differ) => differ.apply(layer, mounts, purpose));
  }

  compare(request: DiffRequest, purpose: DiffPurpose): Promise<Descriptor> {
    return this.#first((differ) => differ.compare(request, purpose));
  }

  async #first<T>(action: (differ: LayerDiffer) => Promise<T>): Promise<T> {
    let failure: unknown = unimplemented('no differ is set up: not implemented');
    for (const differ of this.#order) {
      try {
        return await action(differ);
      } catch (error) {
        failure = error;
        if (!isCode(error, Code.Unimplemented)) break;
      }
    }
    throw failure;
  }

  #get(name: string): LayerDiffer {
    const differ = this.#all.get(name);
    if (differ === undefined)
      throw new Error(`the configuration names the differ ${name}, which is not there`);
    return differ;
  }
}
