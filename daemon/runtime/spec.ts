/** What the daemon checks of an OCI runtime spec before it makes anything; the rest is the runtime's to judge. */
import type { Any } from '../../proto/gen/google/protobuf/any.ts';
import { invalidArgument, messageOf } from '../../ttrpc/errors.ts';

/**
 * The spec's JSON, as the client wrote it.
 * @throws RpcError InvalidArgument, naming the container and what is wrong with its spec
 */
export function specBytes(container: string, spec: Any | undefined): Uint8Array {
  const wrong = (what: string) => invalidArgument(`container ${container}: invalid OCI spec: ${what}`);
  if (spec === undefined || spec.value.length === 0) throw wrong('it is empty');
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(spec.value).toString('utf8'));
  } catch (error) {
    throw wrong(`it is not JSON: ${messageOf(error)}`);
  }
  if (!isObject(value)) throw wrong('it is not a JSON object');
  if (typeof value.ociVersion !== 'string') throw wrong('ociVersion is missing or not a string');
  const { root, process } = value;
  if (root !== undefined && (!isObject(root) || typeof root.path !== 'string')) {
    throw wrong('root.path is missing or not a string');
  }
  if (process !== undefined && !isObject(process)) throw wrong('process is not an object');
  return spec.value;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
