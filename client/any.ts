/** Messages in messages: the type URLs of the API and what is packed under them. */
import type { Any } from '../proto/gen/google/protobuf/any.ts';
import type { MessageType, PartialMessage } from '../ttrpc/service.ts';

export type { Any };

/** The OCI runtime specification's config.json. */
export const SPEC_TYPE = 'types.containerd.io/opencontainers/runtime-spec/1/Spec';
/** Its `process`. */
export const PROCESS_TYPE = 'types.containerd.io/opencontainers/runtime-spec/1/Process';
/** Its `linux.resources`. */
export const RESOURCES_TYPE = 'types.containerd.io/opencontainers/runtime-spec/1/LinuxResources';

/** A value as JSON, which is what containerd packs for types that are no protobuf messages. */
export function pack(typeUrl: string, value: object): Any {
  return { typeUrl, value: Buffer.from(JSON.stringify(value)) };
}

/** A message in its binary encoding. */
export function anyOf<T>(typeUrl: string, type: MessageType<T>, message: PartialMessage<T>): Any {
  return { typeUrl, value: Buffer.from(type.encode(type.fromPartial(message)).finish()) };
}

/** The type's name without a host before it, which some peers write and others leave out. */
export function typeNameOf({ typeUrl }: Any): string {
  return typeUrl.replace(/^type\.googleapis\.com\//, '').replace(/^\//, '');
}
