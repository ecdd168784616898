/** What a transfer is from and to, as clients name it: with containerd's types, or with Moor's where those have no room. */
import {
  ImageExportStream,
  ImageImportStream,
  ImageStore,
  OCIRegistry,
} from '../../proto/gen/containerd/types/transfer.ts';
import { Content, Registry, Store } from '../../proto/gen/moor/transfer/v1.ts';
import type { Any } from '../../proto/gen/google/protobuf/any.ts';
import { invalidArgument, unimplemented } from '../../ttrpc/errors.ts';
import { typeNameOf } from '../distribution/any.ts';

const PREFIX = 'containerd.types.transfer.';
const OWN_PREFIX = 'moor.transfer.v1.';

export type End =
  | { readonly kind: 'registry'; readonly value: Registry & { readonly registry: OCIRegistry } }
  | { readonly kind: 'store'; readonly value: Store & { readonly store: ImageStore } }
  | { readonly kind: 'importStream'; readonly value: ImageImportStream }
  | { readonly kind: 'exportStream'; readonly value: ImageExportStream }
  | { readonly kind: 'content'; readonly value: Content };

const decoders: { readonly [name: string]: (bytes: Buffer) => End } = {
  [`${PREFIX}OCIRegistry`]: (bytes) => registryEnd(Registry.create({ registry: OCIRegistry.decode(bytes) })),
  [`${PREFIX}ImageStore`]: (bytes) => storeEnd(Store.create({ store: ImageStore.decode(bytes) })),
  [`${PREFIX}ImageImportStream`]: (bytes) => ({
    kind: 'importStream',
    value: ImageImportStream.decode(bytes),
  }),
  [`${PREFIX}ImageExportStream`]: (bytes) => ({
    kind: 'exportStream',
    value: ImageExportStream.decode(bytes),
  }),
  [`${OWN_PREFIX}Registry`]: (bytes) => registryEnd(Registry.decode(bytes)),
  [`${OWN_PREFIX}Store`]: (bytes) => storeEnd(Store.decode(bytes)),
  [`${OWN_PREFIX}Content`]: (bytes) => ({ kind: 'content', value: Content.decode(bytes) }),
};

/**
 * @param what `source` or `destination`, for messages
 * @throws RpcError InvalidArgument, Unimplemented for a type that is not known
 */
export function endOf(what: string, any: Any | undefined): End {
  if (any === undefined) throw invalidArgument(`${what} must be set: invalid argument`);
  const name = typeNameOf(any);
  const decode = Object.hasOwn(decoders, name) ? decoders[name] : undefined;
  if (decode === undefined)
    throw unimplemented(
      `${what} of the type ${JSON.stringify(name.slice(0, 160))} is not known: not implemented`,
    );
  return decode(any.value);
}

function registryEnd(value: Registry): End {
  return { kind: 'registry', value: { ...value, registry: value.registry ?? OCIRegistry.create() } };
}

function storeEnd(value: Store): End {
  return { kind: 'store', value: { ...value, store: value.store ?? ImageStore.create() } };
}
