/** Checkpoints of tasks as content: what the runtime writes to a directory, packed, and the specification it belongs to. */
import { randomUUID } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Descriptor } from '../../proto/gen/containerd/types/descriptor.ts';
import { Any } from '../../proto/gen/google/protobuf/any.ts';
import { failedPrecondition, invalidArgument } from '../../ttrpc/errors.ts';
import { DiffRequest } from '../../proto/gen/containerd/services/diff.ts';
import type { NamespacedContent } from '../content/namespaced-content.ts';
import { reached } from '../failpoint.ts';
import type { LayerDiffer } from '../diff/layer-differ.ts';
import type { Namespace } from '../identifiers.ts';

/** containerd's (images/mediatypes.go). */
const CHECKPOINT = 'application/vnd.containerd.container.criu.checkpoint.criu.tar';
const CONFIG = 'application/vnd.containerd.container.checkpoint.config.v1+proto';
const ARCHIVE = 'application/vnd.oci.image.layer.v1.tar';

export interface CheckpointPurpose {
  readonly namespace: Namespace;
  /** Holds what is written. */
  readonly lease: string | undefined;
  readonly signal: AbortSignal;
}

export class CheckpointImages {
  readonly #folder: string;
  readonly #content: NamespacedContent;
  readonly #differ: LayerDiffer;

  /** @param folder for what is on its way into the content store; what a daemon before has left there is removed */
  constructor(folder: string, content: NamespacedContent, differ: LayerDiffer) {
    this.#folder = folder;
    this.#content = content;
    this.#differ = differ;
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true, mode: 0o700 });
  }

  /**
   * Has a checkpoint written and stores it.
   *
   * @param write writes it to the directory
   * @returns what was stored: the checkpoint and the container's specification
   */
  async store(
    spec: Any | undefined,
    write: (directory: string) => Promise<void>,
    purpose: CheckpointPurpose,
  ): Promise<Descriptor[]> {
    if (spec === undefined) throw failedPrecondition('the container has no specification');
    const work = mkdtempSync(join(this.#folder, 'c-'));
    try {
      const [empty, image] = ['empty', 'image'].map((name) => join(work, name));
      mkdirSync(empty!, 0o700);
      mkdirSync(image!, 0o700);
      await write(image!);
      reached('checkpoint-written');
      const packed = await this.#pack(empty!, image!, purpose);
      reached('checkpoint-packed');
      const config = await this.#config(spec, purpose);
      reached('checkpoint-stored');
      return [packed, config];
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  }

  /**
   * Unpacks a stored checkpoint into a directory, which must not exist.
   *
   * @throws RpcError InvalidArgument for what is no checkpoint, NotFound for one that is not there
   */
  async unpack(checkpoint: Descriptor, directory: string, purpose: CheckpointPurpose): Promise<void> {
    const { mediaType } = checkpoint;
    if (mediaType !== CHECKPOINT)
      throw invalidArgument(`unsupported checkpoint type ${JSON.stringify(mediaType)}: invalid argument`);
    mkdirSync(directory, { mode: 0o700 });
    await this.#differ.apply({ ...checkpoint, mediaType: ARCHIVE }, [bind(directory, 'rw')], purpose);
  }

  async #pack(empty: string, image: string, purpose: CheckpointPurpose): Promise<Descriptor> {
    const request = DiffRequest.fromPartial({
      left: [bind(empty, 'ro')],
      right: [bind(image, 'ro')],
      mediaType: ARCHIVE,
      ref: `checkpoint-${randomUUID()}`,
    });
    const { digest, size } = await this.#differ.compare(request, purpose);
    return Descriptor.fromPartial({ mediaType: CHECKPOINT, digest, size });
  }

  async #config(spec: Any, { namespace, lease, signal }: CheckpointPurpose): Promise<Descriptor> {
    const bytes = Buffer.from(Any.encode(spec).finish());
    const options = { lease, signal };
    const digest = await this.#content.put(namespace, `checkpoint-${randomUUID()}`, bytes, options);
    return Descriptor.fromPartial({ mediaType: CONFIG, digest, size: BigInt(bytes.length) });
  }
}

function bind(source: string, access: 'ro' | 'rw') {
  return { type: 'bind', source, target: '', options: [access, 'rbind'] };
}
