import { DiffDefinition } from '../../proto/gen/containerd/services/diff.ts';
import type { Descriptor } from '../../proto/gen/containerd/types/descriptor.ts';
import { invalidArgument } from '../../ttrpc/errors.ts';
import { parseDigest } from '../content/digest.ts';
import type { LayerDiffer } from '../diff/layer-differ.ts';
import { leaseOf, namespaceOf } from '../grpc/context.ts';
import { type Service, service } from '../grpc/server.ts';

/** @param sync whether unpacked layers are always on the disk before a call answers */
export function diffService(differ: LayerDiffer, sync = false): Service {
  return service(DiffDefinition, {
    async apply({ diff, mounts, payloads, syncFs }, context) {
      const layer = given(diff);
      parseDigest(layer.digest);
      const purpose = {
        namespace: namespaceOf(context),
        signal: context.signal,
        sync: syncFs || sync,
        payloads,
      };
      const { mediaType, digest, size } = await differ.apply(layer, mounts, purpose);
      return { applied: { mediaType, digest, size: BigInt(size) } };
    },

    async diff(request, context) {
      const purpose = {
        namespace: namespaceOf(context),
        lease: leaseOf(context),
        signal: context.signal,
      };
      return { diff: await differ.compare(request, purpose) };
    },
  });
}

function given(layer: Descriptor | undefined): Descriptor {
  if (layer === undefined) throw invalidArgument('diff must be set: invalid argument');
  return layer;
}
