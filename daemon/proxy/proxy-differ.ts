import { DiffDefinition, type DiffRequest } from '../../proto/gen/containerd/services/diff.ts';
import type { Descriptor } from '../../proto/gen/containerd/types/descriptor.ts';
import type { Mount } from '../../proto/gen/containerd/types/mount.ts';
import { unknown } from '../../ttrpc/errors.ts';
import type { Applied } from '../diff/differ.ts';
import type { ApplyPurpose, DiffPurpose, LayerDiffer } from '../diff/layer-differ.ts';
import type { PluginConnection } from './plugin-connection.ts';

/**
 * A differ in another process. It is given descriptors and mounts; the layers themselves it reads from the daemon, and writes
 * to it, as any client does.
 */
export class ProxyDiffer implements LayerDiffer {
  readonly name: string;
  readonly #plugin: PluginConnection;

  constructor(plugin: PluginConnection) {
    this.name = plugin.name;
    this.#plugin = plugin;
  }

  async apply(layer: Descriptor, mounts: readonly Mount[], purpose: ApplyPurpose): Promise<Applied> {
    const { sync: syncFs = false, payloads = {} } = purpose;
    const request = { diff: layer, mounts: [...mounts], payloads, syncFs };
    const remote = this.#plugin.service(DiffDefinition);
    const { applied } = await this.#plugin.work(purpose, (options) => remote.apply(request, options));
    const { mediaType, digest, size } = this.#given(applied);
    return { mediaType, digest, size: Number(size) };
  }

  async compare(request: DiffRequest, purpose: DiffPurpose): Promise<Descriptor> {
    const remote = this.#plugin.service(DiffDefinition);
    const { diff } = await this.#plugin.work(purpose, (options) => remote.diff(request, options));
    return this.#given(diff);
  }

  #given(descriptor: Descriptor | undefined): Descriptor {
    if (descriptor === undefined) throw unknown(`plugin ${this.name}: it does not say what it has done`);
    return descriptor;
  }
}
