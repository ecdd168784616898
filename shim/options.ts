import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Options } from '../proto/gen/containerd/runtime/runc.ts';
import { CreateOptions, RuncOptions } from '../proto/gen/containerd/runtime/runc_v1.ts';
import { Any } from '../proto/gen/google/protobuf/any.ts';
import { invalidArgument, messageOf, RpcError } from '../ttrpc/errors.ts';
import { nameOf } from './any.ts';

/** File of the bundle that holds the encoded options, for `shim delete`: it is told the bundle and nothing else. */
export const OPTIONS_FILE = 'options';

/**
 * The OCI runtime's options of a task, whatever client they come from.
 *
 * @throws RpcError InvalidArgument for options of another runtime, or such that do not decode
 */
export function parseOptions(any: Any | undefined): Options {
  if (any === undefined || any.typeUrl === '') return Options.fromPartial({});
  const name = nameOf(any);
  try {
    switch (name) {
      case 'containerd.runc.v1.Options':
        return Options.decode(any.value);
      case 'containerd.linux.runc.CreateOptions':
        return Options.fromPartial(CreateOptions.decode(any.value));
      case 'containerd.linux.runc.RuncOptions': {
        const { runtime, runtimeRoot, criuPath, systemdCgroup } = RuncOptions.decode(any.value);
        return Options.fromPartial({ binaryName: runtime, root: runtimeRoot, criuPath, systemdCgroup });
      }
      default:
        throw invalidArgument(`runtime options of the unknown type ${any.typeUrl}`);
    }
  } catch (error) {
    if (error instanceof RpcError) throw error;
    throw invalidArgument(`runtime options ${name}: ${messageOf(error)}`, error);
  }
}

/** The options that a bundle was created with; none when the file is missing. */
export function readOptions(bundle: string): Options {
  let bytes: Buffer;
  try {
    bytes = readFileSync(join(bundle, OPTIONS_FILE));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return Options.fromPartial({});
    throw error;
  }
  return parseOptions(Any.decode(bytes));
}

/** Where the OCI runtime keeps its state for a namespace. */
export function runtimeRoot(options: Options, namespace: string): string {
  const root = options.root || process.env['MOOR_RUNC_ROOT'] || '/run/moor/runc';
  return join(root, namespace);
}
