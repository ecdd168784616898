/**
 * Bytes over a stream, as many as the receiver has asked for (containerd, docs/streaming.md): it says with window updates how much
 * more it takes.
 */
import { Data, WindowUpdate } from '../../proto/gen/containerd/types/transfer.ts';
import type { Any } from '../../proto/gen/google/protobuf/any.ts';
import { invalidArgument } from '../../ttrpc/errors.ts';
import { messageAny, typeNameOf } from './any.ts';
import type { Channel } from './streams.ts';

const DATA = 'containerd.types.transfer.Data';
const WINDOW = 'containerd.types.transfer.WindowUpdate';

/** Bytes that may be on their way to us. */
const WINDOW_SIZE = 1 << 20;
/** Bytes of a message, which is what Go's side has room for. */
const MESSAGE_SIZE = 32 << 10;

/** What a client sends. @throws RpcError InvalidArgument for anything but data */
export async function* receiveBytes(channel: Channel, signal: AbortSignal): AsyncGenerator<Buffer, void> {
  let window = 0;
  for (;;) {
    if (window <= WINDOW_SIZE / 2) {
      const update = WINDOW_SIZE - window;
      channel.post(messageAny(WINDOW, WindowUpdate, { update }));
      window += update;
    }
    const message = await channel.receive(signal);
    if (message === undefined) return;
    const { data } = decode(message, DATA, Data);
    window -= data.length;
    if (data.length > 0) yield data;
  }
}

/** Sends bytes, as the client takes them. */
export class ByteSender {
  readonly #channel: Channel;
  readonly #signal: AbortSignal;
  #window = 0;

  constructor(channel: Channel, signal: AbortSignal) {
    this.#channel = channel;
    this.#signal = signal;
  }

  /** @throws RpcError Cancelled when the client is gone */
  async send(bytes: Buffer): Promise<void> {
    for (let start = 0; start < bytes.length;) {
      while (this.#window <= 0) await this.#grant();
      const length = Math.min(bytes.length - start, this.#window, MESSAGE_SIZE);
      const data = bytes.subarray(start, start + length);
      await this.#channel.send(messageAny(DATA, Data, { data }), this.#signal);
      this.#window -= length;
      start += length;
    }
  }

  async #grant(): Promise<void> {
    const message = await this.#channel.receive(this.#signal);
    if (message === undefined) throw invalidArgument('the client takes no more: invalid argument');
    this.#window += Math.max(decode(message, WINDOW, WindowUpdate).update, 0);
  }
}

function decode<T>(message: Any, name: string, type: { decode(bytes: Uint8Array): T }): T {
  if (typeNameOf(message) !== name)
    throw invalidArgument(`a message of the type ${name} is expected in this stream: invalid argument`);
  return type.decode(message.value);
}
