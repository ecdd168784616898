/** A gRPC server as any plugin may be written: on a unix socket, with the contracts alone. */
import { type EventEmitter, on } from 'node:events';
import { rmSync } from 'node:fs';
import {
  type Metadata,
  type MethodDefinition,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type UntypedServiceImplementation,
  type sendUnaryData,
  type status as Status,
} from '@grpc/grpc-js';
import { toRpcError } from '../../ttrpc/errors.ts';
import type { MessageType, ServiceDefinition, ServiceImplementation } from '../../ttrpc/service.ts';

const MAX_MESSAGE_BYTES = 16 << 20;

interface Context {
  readonly namespace: string;
}

/** Some of a service's functions. */
type Implementation<S extends ServiceDefinition> = {
  [K in keyof S['methods']]?: (
    request: Parameters<ServiceImplementation<S>[K]>[0],
    context: Context,
  ) => ReturnType<ServiceImplementation<S>[K]>;
};

type Handler = (request: unknown, context: Context) => Promise<object>;

/** Serves a service until the process ends; says `ready` on standard output when it does. */
export function serve<S extends ServiceDefinition>(
  address: string,
  definition: S,
  implementation: Implementation<S>,
): void {
  const server = new Server({
    'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
    'grpc.max_send_message_length': MAX_MESSAGE_BYTES,
  });
  const methods: Record<string, MethodDefinition<object, object>> = {};
  const handlers: UntypedServiceImplementation = {};
  for (const [key, method] of Object.entries(definition.methods)) {
    const handler = implementation[key as keyof S['methods']] as Handler | undefined;
    if (handler === undefined) continue;
    methods[key] = {
      path: `/${definition.fullName}/${method.name}`,
      requestStream: method.requestStream,
      responseStream: method.responseStream,
      requestSerialize: encoder(method.requestType),
      requestDeserialize: (bytes: Buffer) => method.requestType.decode(bytes) as object,
      responseSerialize: encoder(method.responseType),
      responseDeserialize: (bytes: Buffer) => method.responseType.decode(bytes) as object,
    };
    handlers[key] = method.responseStream ? streaming(handler, method.requestStream) : unary(handler);
  }
  server.addService(methods, handlers);
  rmSync(address, { force: true });
  server.bindAsync(`unix:${address}`, ServerCredentials.createInsecure(), (error) => {
    if (error !== null) throw error;
    process.stdout.write('ready\n');
  });
}

function encoder(type: MessageType<unknown>): (message: object) => Buffer {
  return (message) => Buffer.from(type.encode(type.fromPartial(message as never)).finish());
}

function contextOf({ metadata }: { metadata: Metadata }): Context {
  return { namespace: metadata.get('containerd-namespace').join() };
}

function unary(handler: Handler) {
  return (call: ServerUnaryCall<unknown, object>, done: sendUnaryData<object>): void => {
    void (async () => {
      try {
        done(null, await handler(call.request, contextOf(call)));
      } catch (error) {
        done(failure(error));
      }
    })();
  };
}

function streaming(handler: Handler, requests: boolean) {
  return (call: ServerWritableStream<unknown, object> | ServerDuplexStream<unknown, object>): void => {
    void (async () => {
      try {
        const request = requests ? messages(call) : (call as ServerWritableStream<unknown, object>).request;
        for await (const message of handler(request, contextOf(call)) as unknown as AsyncIterable<object>)
          call.write(message);
        call.end();
      } catch (error) {
        call.emit('error', failure(error));
      }
    })();
  };
}

/** What the client sends. Iterating the stream itself would destroy it at the end, before it is answered. */
async function* messages(call: EventEmitter): AsyncGenerator {
  for await (const [message] of on(call, 'data', { close: ['end'] })) yield message;
}

function failure(error: unknown): { code: Status; details: string } {
  const { code, message } = toRpcError(error);
  return { code, details: message };
}
