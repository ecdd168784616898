/** Events as they travel. */
import { Any } from '../../proto/gen/google/protobuf/any.ts';
import type { MessageType, PartialMessage } from '../../ttrpc/service.ts';

/** An event of the `containerd.events` package in its wrapping. */
export function pack<T>(name: string, type: MessageType<T>, event: PartialMessage<T>): Any {
  return packAs(`containerd.events.${name}`, type, event);
}

/** An event of Moor's own, which has the `moor.events` package, in its wrapping. */
export function packOwn<T>(name: string, type: MessageType<T>, event: PartialMessage<T>): Any {
  return packAs(`moor.events.${name}`, type, event);
}

function packAs<T>(typeUrl: string, type: MessageType<T>, event: PartialMessage<T>): Any {
  const bytes = type.encode(type.fromPartial(event)).finish();
  return Any.fromPartial({ typeUrl, value: Buffer.from(bytes) });
}
