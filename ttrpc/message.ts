/**
 * The two messages of ttrpc and the frames that carry them, encoded in place: header, envelope and payload are
 * written into one buffer, so that a call costs one allocation and one write.
 *
 * Field numbers: ttrpc's Request, Response and KeyValue; google.rpc.Status.
 */
import { BinaryReader, BinaryWriter } from '@bufbuild/protobuf/wire';
import { Code, type RpcError } from './errors.ts';
import { Flag, FrameType, HEADER_BYTES, sealFrame } from './frame.ts';
import type { MetadataPair } from './metadata.ts';
import type { MessageType } from './service.ts';

/** One message and how to write it. */
export interface Outgoing<T> {
  readonly type: MessageType<T>;
  readonly message: T;
}

export interface Request {
  readonly service: string;
  readonly method: string;
  /** Undefined when the field was not on the wire: an empty message, or none on a client's stream. */
  readonly payload: Uint8Array | undefined;
  /** Nanoseconds, 0 for none. Negative when the deadline had passed as the request was sent. */
  readonly timeoutNano: number;
  readonly metadata: readonly MetadataPair[];
}

export interface Response {
  readonly code: Code;
  /** The status message; empty when the code is Ok. */
  readonly message: string;
  readonly payload: Uint8Array | undefined;
}

const tag = (field: number, wireType: number): number => (field << 3) | wireType;
const VARINT = 0;
const BYTES = 2;

const emptyHeader = new Uint8Array(HEADER_BYTES);

/** A writer kept for the next frame, unless it has grown larger than this many bytes. */
const KEPT_WRITER_BYTES = 1 << 18;
let spare: BinaryWriter | undefined;

function frameOf(
  stream: number,
  type: number,
  flags: number,
  write: (writer: BinaryWriter) => void,
): Uint8Array {
  // Taken out while in use: a writer that was left half-written by a throwing encoder is never used again.
  const writer = spare ?? new BinaryWriter();
  spare = undefined;
  write(writer);
  const frame = writer.finish();
  if (frame.length <= KEPT_WRITER_BYTES) spare = writer;
  return sealFrame(frame, stream, type, flags);
}

/** What all requests for a method begin with: room for the header, then its service and its name. */
export function requestPrefix(service: string, method: string): Uint8Array {
  const writer = new BinaryWriter().raw(emptyHeader);
  return writer.uint32(tag(1, BYTES)).string(service).uint32(tag(2, BYTES)).string(method).finish();
}

export interface RequestParts<T> {
  readonly stream: number;
  readonly flags: number;
  /** From `requestPrefix`. */
  readonly prefix: Uint8Array;
  readonly payload: Outgoing<T> | undefined;
  /** Milliseconds. */
  readonly timeout: number | undefined;
  readonly metadata: Iterable<MetadataPair> | undefined;
}

/** @throws RpcError ResourceExhausted when the request is too large; whatever the encoder throws. */
export function requestFrame<T>(parts: RequestParts<T>): Uint8Array {
  return frameOf(parts.stream, FrameType.Request, parts.flags, (writer) => {
    writer.raw(parts.prefix);
    if (parts.payload !== undefined) writePayload(writer, 3, parts.payload);
    if (parts.timeout !== undefined) writer.uint32(tag(4, VARINT)).int64(nanosecondsOf(parts.timeout));
    for (const [key, value] of parts.metadata ?? []) {
      writer.uint32(tag(5, BYTES)).fork();
      writer.uint32(tag(1, BYTES)).string(key.toLowerCase()).uint32(tag(2, BYTES)).string(value).join();
    }
  });
}

/** @throws RpcError ResourceExhausted when the response is too large; whatever the encoder throws. */
export function responseFrame<T>(stream: number, payload: Outgoing<T>): Uint8Array {
  return frameOf(stream, FrameType.Response, Flag.None, (writer) => {
    // An empty status is Ok. Go's server always sends one, so old clients are given one too.
    writer.raw(emptyHeader).uint32(tag(1, BYTES)).uint32(0);
    writePayload(writer, 2, payload);
  });
}

/** More than anyone reads, and far from the limit of a frame, so that a failure can always be sent. */
const MAX_STATUS_CHARACTERS = 1 << 16;

export function errorFrame(stream: number, error: RpcError): Uint8Array {
  return frameOf(stream, FrameType.Response, Flag.None, (writer) => {
    writer.raw(emptyHeader).uint32(tag(1, BYTES)).fork();
    // A failure must not pass for a success, even if someone throws one with that code.
    writer.uint32(tag(1, VARINT)).int32(error.code === Code.Ok ? Code.Unknown : error.code);
    writer.uint32(tag(2, BYTES)).string(error.message.slice(0, MAX_STATUS_CHARACTERS)).join();
  });
}

/** @throws RpcError ResourceExhausted when the message is too large; whatever the encoder throws. */
export function dataFrame<T>(stream: number, { type, message }: Outgoing<T>): Uint8Array {
  return frameOf(stream, FrameType.Data, Flag.None, (writer) => {
    type.encode(message, writer.raw(emptyHeader));
  });
}

/** The last frame of a side that has sent data. Go's server refuses one that also carries a message. */
export function lastDataFrame(stream: number): Uint8Array {
  return sealFrame(new Uint8Array(HEADER_BYTES), stream, FrameType.Data, Flag.RemoteClosed | Flag.NoData);
}

function writePayload<T>(writer: BinaryWriter, field: number, { type, message }: Outgoing<T>): void {
  type.encode(message, writer.uint32(tag(field, BYTES)).fork()).join();
}

const MAX_INT64 = 2n ** 63n - 1n;

function nanosecondsOf(milliseconds: number): number | bigint {
  const nanoseconds = Math.ceil(milliseconds * 1e6);
  if (Number.isSafeInteger(nanoseconds)) return nanoseconds;
  const exact = BigInt(Math.ceil(milliseconds)) * 1_000_000n;
  return exact < MAX_INT64 ? exact : MAX_INT64;
}

/** @throws Error when the bytes are not a Request. */
export function decodeRequest(bytes: Uint8Array): Request {
  const reader = new BinaryReader(bytes);
  let service = '';
  let method = '';
  let payload: Uint8Array | undefined;
  let timeoutNano = 0;
  const metadata: MetadataPair[] = [];
  while (reader.pos < reader.len) {
    const start = reader.pos;
    const fieldTag = reader.uint32();
    switch (fieldTag) {
      case tag(1, BYTES):
        service = reader.string();
        break;
      case tag(2, BYTES):
        method = reader.string();
        break;
      case tag(3, BYTES):
        payload = reader.bytes();
        break;
      case tag(4, VARINT):
        timeoutNano = Number(reader.int64());
        break;
      case tag(5, BYTES):
        metadata.push(decodePair(reader.bytes()));
        break;
      default:
        skip(reader, start);
    }
  }
  return { service, method, payload, timeoutNano, metadata };
}

/** @throws Error when the bytes are not a Response. A missing status is Ok; a code nobody knows is Unknown. */
export function decodeResponse(bytes: Uint8Array): Response {
  const reader = new BinaryReader(bytes);
  let status = { code: Code.Ok as Code, message: '' };
  let payload: Uint8Array | undefined;
  while (reader.pos < reader.len) {
    const start = reader.pos;
    const fieldTag = reader.uint32();
    switch (fieldTag) {
      case tag(1, BYTES):
        status = decodeStatus(reader.bytes());
        break;
      case tag(2, BYTES):
        payload = reader.bytes();
        break;
      default:
        skip(reader, start);
    }
  }
  return { ...status, payload };
}

function decodePair(bytes: Uint8Array): MetadataPair {
  const reader = new BinaryReader(bytes);
  let key = '';
  let value = '';
  while (reader.pos < reader.len) {
    const start = reader.pos;
    const fieldTag = reader.uint32();
    if (fieldTag === tag(1, BYTES)) key = reader.string();
    else if (fieldTag === tag(2, BYTES)) value = reader.string();
    else skip(reader, start);
  }
  return [key, value];
}

function decodeStatus(bytes: Uint8Array): { code: Code; message: string } {
  const reader = new BinaryReader(bytes);
  let code = 0;
  let message = '';
  while (reader.pos < reader.len) {
    const start = reader.pos;
    const fieldTag = reader.uint32();
    if (fieldTag === tag(1, VARINT)) code = reader.int32();
    else if (fieldTag === tag(2, BYTES)) message = reader.string();
    else skip(reader, start);
  }
  return { code: isCodeNumber(code) ? code : Code.Unknown, message };
}

function isCodeNumber(code: number): code is Code {
  return code >= Code.Ok && code <= Code.Unauthenticated;
}

/** Passes over the field that begins at `start`. */
function skip(reader: BinaryReader, start: number): void {
  reader.pos = start;
  const [field, wireType] = reader.tag();
  reader.skip(wireType, field);
}
