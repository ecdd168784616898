import type { DiffRequest } from '../../proto/gen/containerd/services/diff.ts';
import type { Any } from '../../proto/gen/google/protobuf/any.ts';
import type { Descriptor } from '../../proto/gen/containerd/types/descriptor.ts';
import type { Mount } from '../../proto/gen/containerd/types/mount.ts';
import type { Namespace } from '../identifiers.ts';
import type { Applied } from './differ.ts';

/** What a layer is unpacked for. */
export interface ApplyPurpose {
  readonly namespace: Namespace;
  readonly signal: AbortSignal;
  /** Answer only when everything is on the disk. */
  readonly sync?: boolean;
  /** What a client says to the differs that understand it. */
  readonly payloads?: { readonly [name: string]: Any };
}

/** What a layer is made for. */
export interface DiffPurpose {
  readonly namespace: Namespace;
  /** Holds the layer. */
  readonly lease: string | undefined;
  readonly signal: AbortSignal;
}

/** Unpacks layers of a namespace's content, and makes layers that become its content. Errors are RpcErrors. */
export interface LayerDiffer {
  readonly name: string;

  /** @throws RpcError Unimplemented for layers that are none of its; otherwise see `Differ` */
  apply(layer: Descriptor, mounts: readonly Mount[], purpose: ApplyPurpose): Promise<Applied>;

  /** Makes the layer that leads from one tree to another. @throws RpcError as `apply` */
  compare(request: DiffRequest, purpose: DiffPurpose): Promise<Descriptor>;
}
