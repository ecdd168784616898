/** The content service's two messages that carry bulk: generated code copies their bytes two or three times, this does once or not. */
import { BinaryReader, BinaryWriter } from '@bufbuild/protobuf/wire';
import {
  ContentDefinition,
  ReadContentResponse,
  WriteContentRequest,
} from '../../proto/gen/containerd/services/content.ts';
import type { MessageType } from '../../ttrpc/service.ts';

/** Tag of `ReadContentResponse.data`: field 2, length-delimited. */
const DATA = 18;

/** A message that has been written already. */
class Written extends BinaryWriter {
  readonly #bytes: Uint8Array<ArrayBuffer>;

  constructor(bytes: Uint8Array<ArrayBuffer>) {
    super();
    this.#bytes = bytes;
  }

  override finish(): Uint8Array<ArrayBuffer> {
    return this.#bytes;
  }
}

/** Copies the data once, into the message. */
const readResponse: MessageType<ReadContentResponse> = {
  decode: (input, length) => ReadContentResponse.decode(input, length),
  fromPartial: (object) => ReadContentResponse.fromPartial(object),
  encode({ offset, data }) {
    const head = ReadContentResponse.encode({ offset, data: Buffer.alloc(0) })
      .uint32(DATA)
      .uint32(data.length)
      .finish();
    const bytes = Buffer.allocUnsafe(head.length + data.length);
    bytes.set(head);
    bytes.set(data, head.length);
    return new Written(bytes);
  },
};

/** Reads a message whose one field of bytes is lent out instead of copied. */
class LendingReader extends BinaryReader {
  lent: Uint8Array | undefined;
  #inText = false;

  override string(strict?: boolean): string {
    this.#inText = true;
    try {
      return super.string(strict);
    } finally {
      this.#inText = false;
    }
  }

  override bytes(): ReturnType<BinaryReader['bytes']> {
    const bytes = super.bytes();
    if (this.#inText) return bytes;
    this.lent = bytes;
    return bytes.subarray(0, 0);
  }
}

/** The data is a part of the message it came in, whose memory is nobody else's. */
const writeRequest: MessageType<WriteContentRequest> = {
  encode: (message, writer) => WriteContentRequest.encode(message, writer),
  fromPartial: (object) => WriteContentRequest.fromPartial(object),
  decode(input, length) {
    if (input instanceof BinaryReader) return WriteContentRequest.decode(input, length);
    const reader = new LendingReader(input);
    const message = WriteContentRequest.decode(reader, length);
    const { lent } = reader;
    if (lent !== undefined) message.data = Buffer.from(lent.buffer, lent.byteOffset, lent.byteLength);
    return message;
  },
};

const { read, write } = ContentDefinition.methods;

/** The service's definition, the same on the wire. */
export const definition = {
  ...ContentDefinition,
  methods: {
    ...ContentDefinition.methods,
    read: { ...read, responseType: readResponse },
    write: { ...write, requestType: writeRequest },
  },
};
