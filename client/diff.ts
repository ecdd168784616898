import { DiffDefinition } from '../proto/gen/containerd/services/diff.ts';
import type { Mount } from '../proto/gen/containerd/types/mount.ts';
import { internal } from '../ttrpc/errors.ts';
import type { CallOptions, ServiceClient } from '../ttrpc/service.ts';
import type { Headers } from '../grpc/channel.ts';
import type { Connection } from './connection.ts';
import type { Descriptor } from './manifest.ts';
import type { Labels } from './namespace.ts';

export interface CompareOptions extends CallOptions {
  /** Of the layer. Default: OCI's, compressed with gzip. */
  readonly mediaType?: string;
  /** Names the write of the layer. Default: the daemon finds one. */
  readonly ref?: string;
  /** Of the layer. */
  readonly labels?: Labels;
}

/** Layers of snapshots, and snapshots of layers. */
export class Diffs {
  readonly #service: ServiceClient<typeof DiffDefinition>;

  constructor(connection: Connection, headers: Headers) {
    this.#service = connection.service(DiffDefinition, headers);
  }

  /** Makes the layer that leads from one snapshot to another. A lease has to hold it. */
  async compare(
    lower: readonly Mount[],
    upper: readonly Mount[],
    options: CompareOptions = {},
  ): Promise<Descriptor> {
    const { mediaType = '', ref = '', labels = {}, ...call } = options;
    const request = { left: [...lower], right: [...upper], mediaType, ref, labels };
    return present((await this.#service.diff(request, call)).diff);
  }

  /**
   * Unpacks a layer into a prepared snapshot.
   *
   * @returns what was unpacked: its digest is the diff id
   * @throws RpcError NotFound; InvalidArgument for a layer that is malformed
   */
  async apply(layer: Descriptor, mounts: readonly Mount[], options?: CallOptions): Promise<Descriptor> {
    return present((await this.#service.apply({ diff: layer, mounts: [...mounts] }, options)).applied);
  }
}

function present(descriptor: Descriptor | undefined): Descriptor {
  if (descriptor === undefined) throw internal('the daemon sent nothing of a layer');
  return descriptor;
}
