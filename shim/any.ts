import type { Any } from '../proto/gen/google/protobuf/any.ts';

/** A message inside an Any, under its full name and without a host part, as containerd writes them. */
export function pack(name: string, value: Uint8Array): Any {
  return { typeUrl: name, value: Buffer.from(value.buffer, value.byteOffset, value.byteLength) };
}

/** The message's full name; `type.googleapis.com/` and the like may stand before it. */
export function nameOf(any: Any): string {
  return any.typeUrl.slice(any.typeUrl.lastIndexOf('/') + 1);
}
