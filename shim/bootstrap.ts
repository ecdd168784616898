import { BootstrapParams, BootstrapResult, LogLevel } from '../proto/gen/containerd/runtime/bootstrap.ts';
import { Options } from '../proto/gen/containerd/runtime/runc.ts';
import { Any } from '../proto/gen/google/protobuf/any.ts';
import { pack } from './any.ts';

/** How a daemon has written its parameters, and wants the answer: each generation of containerd has its own way. */
export type Dialect = 'address' | 'json' | 'protobuf';

/** What a daemon says on the standard input of `start`. */
export interface Bootstrap {
  readonly dialect: Dialect;
  /** Options of the runtime, undefined without any. */
  readonly options: Any | undefined;
  readonly debug: boolean;
  /** Empty when not said; the environment has it then. */
  readonly ttrpcAddress: string;
  readonly grpcAddress: string;
  /** Where the socket is to be; empty for the shim to choose. */
  readonly socketDir: string;
}

/**
 * Understands all three forms. containerd 2.3 and later write BootstrapParams; earlier ones write the options as an Any,
 * or nothing. An Any decodes as BootstrapParams too, as both begin with two strings, so the parameters are believed only
 * when they name this very task (containerd's pkg/shim/compat.go).
 *
 * @throws Error for what is none of them
 */
export function parseBootstrap(input: Uint8Array, task: { id: string; namespace: string }): Bootstrap {
  if (input.length === 0) return fromOptions(undefined);
  if (input[0] === '{'.charCodeAt(0)) return fromParams(fromJson(Buffer.from(input).toString()), 'json');
  const params = tryDecode(input);
  const isOurs = params?.instanceId === task.id && params.namespace === task.namespace;
  return isOurs ? fromParams(params, 'protobuf') : fromOptions(Any.decode(input));
}

/** The answer to a daemon: where the shim listens, and which version of the task service it may use. */
export function encodeResult(address: string, dialect: Dialect, version: 2 | 3): Uint8Array {
  const result = { version, address, protocol: 'ttrpc' };
  if (dialect === 'protobuf') return BootstrapResult.encode(result).finish();
  return Buffer.from(dialect === 'json' ? JSON.stringify(result) : address);
}

function fromOptions(options: Any | undefined): Bootstrap {
  const understandsJson = Number(process.env['MAX_SHIM_VERSION'] ?? 0) >= 3;
  const dialect = understandsJson ? 'json' : 'address';
  return { dialect, options, debug: false, ttrpcAddress: '', grpcAddress: '', socketDir: '' };
}

function fromParams(params: BootstrapParams, dialect: Dialect): Bootstrap {
  const options = params.extensions
    .map(({ value }) => value)
    .find((value) => value?.typeUrl.endsWith('Options'));
  return {
    dialect,
    options,
    debug: params.logLevel < LogLevel.LOG_LEVEL_INFO,
    ttrpcAddress: params.containerdTtrpcAddress,
    grpcAddress: params.containerdGrpcAddress,
    socketDir: params.socketDir ?? '',
  };
}

function tryDecode(input: Uint8Array): BootstrapParams | undefined {
  try {
    return BootstrapParams.decode(input);
  } catch {
    return undefined;
  }
}

/** The parameters in protobuf's JSON mapping, where an Any holds the fields of its message beside its type. */
function fromJson(text: string): BootstrapParams {
  const { extensions, logLevel, ...strings } = JSON.parse(text) as Partial<Record<string, unknown>>;
  const levels: Readonly<Record<string, number>> = LogLevel;
  const level = typeof logLevel === 'number' ? logLevel : levels[String(logLevel)];
  const params = BootstrapParams.fromPartial(strings);
  params.logLevel = (level ?? LogLevel.LOG_LEVEL_INFO) as LogLevel;
  for (const extension of (extensions ?? []) as { value?: Record<string, unknown> }[]) {
    const { '@type': type, ...fields } = extension.value ?? {};
    if (typeof type !== 'string' || !type.endsWith('containerd.runc.v1.Options')) continue;
    const value = pack(type, Options.encode(Options.fromPartial(fields)).finish());
    params.extensions.push({ value });
  }
  return params;
}
