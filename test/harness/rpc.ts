/** The raw gRPC API, for what ctr cannot say: typed by the generated definitions, nothing interpreted. */
import { Client, Metadata, credentials, type ServiceError } from '@grpc/grpc-js';
import type { CallOptions, MethodDefinition, ServiceClient, ServiceDefinition } from '../../ttrpc/service.ts';

const messageLimit = 16 * 1024 * 1024;

/** How a call failed: the gRPC code by number, and the daemon's own words. */
export interface Failure {
  readonly code: number;
  readonly message: string;
}

/** A connection to a daemon's gRPC socket. */
export class Connection implements Disposable {
  readonly #client: Client;

  constructor(address: string) {
    this.#client = new Client(`unix://${address}`, credentials.createInsecure(), {
      'grpc.default_authority': 'localhost',
      // A connection is its own: another that waits for a daemon to come back does not hold it up.
      'grpc.use_local_subchannel_pool': 1,
      'grpc.initial_reconnect_backoff_ms': 20,
      'grpc.max_reconnect_backoff_ms': 100,
      'grpc.max_receive_message_length': messageLimit,
    });
  }

  /** The functions of one service, each call carrying the namespace when given. */
  service<S extends ServiceDefinition>(definition: S, namespace?: string): ServiceClient<S> {
    const functions: Record<string, unknown> = {};
    for (const [name, method] of Object.entries(definition.methods)) {
      const path = `/${definition.fullName}/${method.name}`;
      functions[name] = method.responseStream
        ? (request: unknown, options?: CallOptions) => this.#stream(path, method, request, namespace, options)
        : (request: unknown, options?: CallOptions) => this.#unary(path, method, request, namespace, options);
    }
    return functions as ServiceClient<S>;
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }

  #unary(
    path: string,
    method: MethodDefinition,
    request: unknown,
    namespace?: string,
    options?: CallOptions,
  ) {
    return new Promise((resolve, reject) => {
      const call = this.#client.makeUnaryRequest(
        path,
        (message: unknown) => Buffer.from(method.requestType.encode(message).finish()),
        (bytes: Buffer) => method.responseType.decode(bytes) as unknown,
        method.requestType.fromPartial(request),
        metadataOf(namespace, options),
        { deadline: Date.now() + (options?.timeout ?? 30_000) },
        (error, response) => (error ? reject(error) : resolve(response)),
      );
      options?.signal?.addEventListener('abort', () => call.cancel(), { once: true });
    });
  }

  #stream(
    path: string,
    method: MethodDefinition,
    request: unknown,
    namespace?: string,
    options?: CallOptions,
  ) {
    const call = this.#client.makeServerStreamRequest(
      path,
      (message: unknown) => Buffer.from(method.requestType.encode(message).finish()),
      (bytes: Buffer) => method.responseType.decode(bytes) as unknown,
      method.requestType.fromPartial(request),
      metadataOf(namespace, options),
    );
    options?.signal?.addEventListener('abort', () => call.cancel(), { once: true });
    return call as AsyncIterable<unknown>;
  }
}

function metadataOf(namespace?: string, options?: CallOptions): Metadata {
  const metadata = new Metadata();
  if (namespace !== undefined) metadata.set('containerd-namespace', namespace);
  for (const [key, value] of options?.metadata ?? []) metadata.add(key, value);
  return metadata;
}

/** Awaits a call that must fail, and returns how it failed. */
export async function failureOf(call: Promise<unknown>): Promise<Failure> {
  let answer: unknown;
  try {
    answer = await call;
  } catch (error) {
    const { code, details } = error as ServiceError;
    return { code, message: details };
  }
  throw new Error(`the call succeeded: ${JSON.stringify(answer, (_, value: unknown) => String(value))}`);
}
