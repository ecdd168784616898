/** Messages of a type that is told beside them. */
import type { Any } from '../../proto/gen/google/protobuf/any.ts';
import type { MessageType, PartialMessage } from '../../ttrpc/service.ts';

export function messageAny<T>(name: string, type: MessageType<T>, message: PartialMessage<T>): Any {
  return { typeUrl: name, value: Buffer.from(type.encode(type.fromPartial(message)).finish()) };
}

/** Without the host part that some put in front. */
export function typeNameOf({ typeUrl }: Any): string {
  return typeUrl.slice(typeUrl.lastIndexOf('/') + 1);
}
