/**
 * What a service looks like, on either wire: definitions as ts-proto generates them
 * (`outputServices=generic-definitions`), implementations as plain objects of functions.
 */
import type { BinaryReader, BinaryWriter } from '@bufbuild/protobuf/wire';

/** A message with any of its fields left out; what is left out takes its protobuf default. */
export type PartialMessage<T> = T extends Uint8Array | bigint | string | number | boolean | undefined
  ? T
  : T extends (infer U)[]
    ? PartialMessage<U>[]
    : T extends { $case: string; value: unknown }
      ? { $case: T['$case']; value: PartialMessage<T['value']> }
      : T extends object
        ? { [K in keyof T]?: PartialMessage<T[K]> }
        : T;

/** The static side of one generated message. */
export interface MessageType<T> {
  encode(message: T, writer?: BinaryWriter): BinaryWriter;
  decode(input: BinaryReader | Uint8Array, length?: number): T;
  fromPartial(object: PartialMessage<T>): T;
}

/* eslint-disable-next-line @typescript-eslint/no-explicit-any -- a method's types are recovered by inference */
type AnyMessageType = MessageType<any>;

export interface MethodDefinition {
  readonly name: string;
  readonly requestType: AnyMessageType;
  readonly requestStream: boolean;
  readonly responseType: AnyMessageType;
  readonly responseStream: boolean;
}

export interface ServiceDefinition {
  readonly name: string;
  /** With its package: `containerd.task.v2.Task`. */
  readonly fullName: string;
  readonly methods: { readonly [key: string]: MethodDefinition };
}

/** Header values by lower-case key. A key may come several times. */
export type Metadata = ReadonlyMap<string, readonly string[]>;

/** What an implementation knows of the call it serves. */
export interface CallContext {
  /** Aborted when the caller cancels, its deadline passes or its connection is lost. */
  readonly signal: AbortSignal;
  readonly metadata: Metadata;
  /** The caller's process. 0 or undefined when it cannot be known: it has another pid namespace, its connection is gone, the wire does not tell. */
  readonly peerPid?: number | undefined;
  /**
   * Has a function called for each message of a stream of responses once the kernel has it, so that the caller gets it whatever becomes
   * of this process. Undefined where the wire does not tell.
   */
  onSent?(sent: () => void): void;
}

/** What a caller may say about a call. */
export interface CallOptions {
  readonly signal?: AbortSignal;
  readonly metadata?: Iterable<readonly [string, string]>;
  /** Milliseconds until the call fails with DeadlineExceeded; the peer is told. */
  readonly timeout?: number;
}

type Message<T> = T extends MessageType<infer M> ? M : never;
type Request<M extends MethodDefinition> = Message<M['requestType']>;
type Response<M extends MethodDefinition> = Message<M['responseType']>;

type ServedRequest<M extends MethodDefinition> = M['requestStream'] extends true
  ? AsyncIterable<Request<M>>
  : Request<M>;
type ServedResponse<M extends MethodDefinition> = M['responseStream'] extends true
  ? AsyncIterable<PartialMessage<Response<M>>>
  : Promise<PartialMessage<Response<M>>>;

/** The functions that serve a definition. Requests are whole messages, responses may leave fields out. */
export type ServiceImplementation<S extends ServiceDefinition> = {
  [K in keyof S['methods']]: (
    request: ServedRequest<S['methods'][K]>,
    context: CallContext,
  ) => ServedResponse<S['methods'][K]>;
};

type SentRequest<M extends MethodDefinition> = M['requestStream'] extends true
  ? AsyncIterable<PartialMessage<Request<M>>>
  : PartialMessage<Request<M>>;
type ReceivedResponse<M extends MethodDefinition> = M['responseStream'] extends true
  ? AsyncIterable<Response<M>>
  : Promise<Response<M>>;

/** The functions that call a definition. */
export type ServiceClient<S extends ServiceDefinition> = {
  [K in keyof S['methods']]: (
    request: SentRequest<S['methods'][K]>,
    options?: CallOptions,
  ) => ReceivedResponse<S['methods'][K]>;
};
