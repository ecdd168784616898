/** The runtime's options, which come in a form per generation of clients. */
import {
  CheckpointOptions,
  Options,
  protobufPackage as runcPackage,
} from '../../proto/gen/containerd/runtime/runc.ts';
import {
  CheckpointOptions as OldCheckpointOptions,
  CreateOptions,
  RuncOptions,
  protobufPackage as oldPackage,
} from '../../proto/gen/containerd/runtime/runc_v1.ts';
import type { Any } from '../../proto/gen/google/protobuf/any.ts';
import { invalidArgument, messageOf } from '../../ttrpc/errors.ts';

const OPTIONS = `${runcPackage}.Options`;
const CHECKPOINT_OPTIONS = `${runcPackage}.CheckpointOptions`;
const RUNC_OPTIONS = `${oldPackage}.RuncOptions`;
const CREATE_OPTIONS = `${oldPackage}.CreateOptions`;
const OLD_CHECKPOINT_OPTIONS = `${oldPackage}.CheckpointOptions`;

/** The message's full name: clients write the type URL with and without a host before it. */
export function typeName(any: Any): string {
  return any.typeUrl.slice(any.typeUrl.lastIndexOf('/') + 1);
}

/**
 * The options for Moor's own shim, always of the newest type. Those of the request replace the container's, as in containerd;
 * clients of the first generation, though, say with the container which runtime to use and with the request how.
 *
 * @returns undefined when neither says anything
 * @throws RpcError InvalidArgument for a type the shim does not know, or bytes that are not of their type
 */
export function ownOptions(request: Any | undefined, container: Any | undefined): Any | undefined {
  const chosen = present(request) ?? present(container);
  if (chosen === undefined) return undefined;
  switch (typeName(chosen)) {
    case OPTIONS:
      decoded(Options, chosen);
      return { typeUrl: OPTIONS, value: chosen.value };
    case RUNC_OPTIONS:
      return packed(fromRunc(decoded(RuncOptions, chosen)));
    case CREATE_OPTIONS: {
      const base = present(container);
      const runc = base !== undefined && typeName(base) === RUNC_OPTIONS ? decoded(RuncOptions, base) : {};
      return packed({
        ...fromRunc(RuncOptions.fromPartial(runc)),
        ...fromCreate(decoded(CreateOptions, chosen)),
      });
    }
    default:
      throw invalidArgument(`runtime options of type ${typeName(chosen)} are not known; ${OPTIONS} is`);
  }
}

/** Options for a foreign shim: as they came. */
export function foreignOptions(request: Any | undefined, container: Any | undefined): Any | undefined {
  return present(request) ?? present(container);
}

/**
 * The directory of a checkpoint to restore from, which options can name.
 * @returns empty when they do not
 */
export function restorePath(options: Any | undefined): string {
  if (options === undefined || typeName(options) !== OPTIONS) return '';
  return decoded(Options, options).criuImagePath;
}

/**
 * The directory to write a checkpoint to, which options can name.
 * @returns empty when they do not
 * @throws RpcError InvalidArgument for options of another type
 */
export function checkpointPath(options: Any | undefined): string {
  const given = present(options);
  if (given === undefined) return '';
  switch (typeName(given)) {
    case CHECKPOINT_OPTIONS:
      return decoded(CheckpointOptions, given).imagePath;
    case OLD_CHECKPOINT_OPTIONS:
      return decoded(OldCheckpointOptions, given).imagePath;
    default:
      throw invalidArgument(`checkpoint options of type ${typeName(given)} are not known`);
  }
}

/** An Any without a type says nothing: old clients send one instead of none. */
function present(any: Any | undefined): Any | undefined {
  return any === undefined || any.typeUrl === '' ? undefined : any;
}

function packed(options: Partial<Options>): Any {
  return { typeUrl: OPTIONS, value: Buffer.from(Options.encode(Options.fromPartial(options)).finish()) };
}

function decoded<T>(type: { decode(bytes: Uint8Array): T }, any: Any): T {
  try {
    return type.decode(any.value);
  } catch (error) {
    throw invalidArgument(`options are not a ${typeName(any)}: ${messageOf(error)}`);
  }
}

function fromRunc(old: RuncOptions): Partial<Options> {
  return {
    binaryName: old.runtime,
    root: old.runtimeRoot,
    criuPath: old.criuPath,
    systemdCgroup: old.systemdCgroup,
  };
}

function fromCreate(old: CreateOptions): Partial<Options> {
  return {
    noPivotRoot: old.noPivotRoot,
    noNewKeyring: old.noNewKeyring,
    shimCgroup: old.shimCgroup,
    ioUid: old.ioUid,
    ioGid: old.ioGid,
    criuImagePath: old.criuImagePath,
    criuWorkPath: old.criuWorkPath,
  };
}
