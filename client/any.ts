/** Messages in messages: the type URLs of the API and what is packed under them. */
import type { Any } from '../proto/gen/google/protobuf/any.ts';
import type { MessageType, PartialMessage } from '../ttrpc/service.ts';

export type { Any };

/** A message in its binary encoding. */
export function anyOf<T>(typeUrl: string, type: MessageType<T>, message: PartialMessage<T>): Any {
  return { typeUrl, value: Buffer.from(type.encode(type.fromPartial(message)).finish()) };
}

/** The type's name without a host before it, which some peers write and others leave out. */
export function typeNameOf({ typeUrl }: Any): string {
  return typeUrl.replace(/^type\.googleapis\.com\//, '').replace(/^\//, '');
}
