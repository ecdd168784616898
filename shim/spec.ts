import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { invalidArgument, messageOf } from '../ttrpc/errors.ts';

/** File of the bundle with the specification. */
export const SPEC_FILE = 'config.json';

/** What the shim itself needs to know of an OCI runtime specification; the rest is for the runtime. */
export interface Spec {
  /** The init has a PID namespace of its own, so the kernel ends all other processes with it (pid_namespaces(7)). */
  readonly ownPidNamespace: boolean;
  /** Programs wait for the container's start. */
  readonly hasPoststartHooks: boolean;
  /** Programs wait for the container's deletion. */
  readonly hasPoststopHooks: boolean;
  /** Where the container's cgroups are wanted; empty where that is left to the runtime. */
  readonly cgroupsPath: string;
}

/**
 * Reads a bundle's config.json.
 *
 * @throws RpcError InvalidArgument when there is none or it is not a JSON object
 */
export function readSpec(bundle: string): Spec {
  const path = join(bundle, SPEC_FILE);
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw invalidArgument(`the bundle has no specification: ${messageOf(error)}`, error);
  }
  const { linux, hooks } = parseObject(text, path);
  const has = (name: string): boolean => {
    const programs = isObject(hooks) ? hooks[name] : undefined;
    return Array.isArray(programs) && programs.length > 0;
  };
  const cgroupsPath = isObject(linux) ? linux['cgroupsPath'] : undefined;
  const namespaces = isObject(linux) && Array.isArray(linux['namespaces']) ? linux['namespaces'] : [];
  return {
    ownPidNamespace: namespaces.some(
      (namespace) => isObject(namespace) && namespace['type'] === 'pid' && !namespace['path'],
    ),
    hasPoststartHooks: has('poststart'),
    hasPoststopHooks: has('poststop'),
    cgroupsPath: typeof cgroupsPath === 'string' ? cgroupsPath : '',
  };
}

/** @throws RpcError InvalidArgument, naming `what`, for anything but a JSON object */
export function parseObject(text: string, what: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw invalidArgument(`${what} is not JSON: ${messageOf(error)}`, error);
  }
  if (!isObject(value)) throw invalidArgument(`${what} is not a JSON object`);
  return value;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
