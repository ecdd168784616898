/**
 * Names that reach the daemon from outside, checked once at the edge. What has one of these types may be part of a path.
 */
import { invalidArgument } from '../ttrpc/errors.ts';

declare const brand: unique symbol;
type Branded<Name extends string> = string & { readonly [brand]: Name };

/** A tenant: what lives in one namespace is invisible in another. */
export type Namespace = Branded<'Namespace'>;
/** A container within its namespace; its task has the same id. */
export type ContainerId = Branded<'ContainerId'>;
/** A named network within its namespace. */
export type NetworkName = Branded<'NetworkName'>;
/** An exec within its container. */
export type ExecId = Branded<'ExecId'>;

const MAX_LENGTH = 76;
const RULE = '^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$';
/** The same language as `RULE`, which is what peers print. This one reads long input once (no nested repetition). */
const identifier = /^[A-Za-z0-9](?:[._-]?[A-Za-z0-9])*$/;

/** Shown of a refused value at most: enough to recognise it, too little to flood a log. */
const SHOWN = 96;

function quoted(value: string): string {
  return JSON.stringify(value.length > SHOWN ? `${value.slice(0, SHOWN)}…` : value);
}

/**
 * Checks that `value` is an identifier in containerd's sense: alphanumeric runs joined by single separators, at most 76
 * characters. Such a value is safe as a path component.
 *
 * @throws RpcError InvalidArgument that names the value and the rule
 */
export function checkIdentifier(value: string): void {
  if (value === '') throw invalidArgument('identifier must not be empty: invalid argument');
  if (value.length > MAX_LENGTH) {
    throw invalidArgument(
      `identifier ${quoted(value)} greater than maximum length (${MAX_LENGTH} characters): invalid argument`,
    );
  }
  if (!identifier.test(value)) {
    throw invalidArgument(`identifier ${quoted(value)} must match ${RULE}: invalid argument`);
  }
}

function parse<T extends string>(what: string, value: string): Branded<T> {
  try {
    checkIdentifier(value);
  } catch (error) {
    throw invalidArgument(`${what}: ${(error as Error).message}`, error);
  }
  return value as Branded<T>;
}

/** @throws RpcError InvalidArgument */
export function parseNamespace(value: string): Namespace {
  return parse('namespace', value);
}

/** @throws RpcError InvalidArgument */
export function parseId(value: string): ContainerId {
  return parse('container id', value);
}

/** @throws RpcError InvalidArgument */
export function parseExecId(value: string): ExecId {
  return parse('exec id', value);
}

const MAX_LABEL_BYTES = 4096;

/**
 * Checks that each label's key and value together hold at most 4096 bytes.
 *
 * @param what where the labels came from, for the message: `namespace.Labels`
 * @throws RpcError InvalidArgument that names the key
 */
export function checkLabels(what: string, labels: { readonly [key: string]: string }): void {
  for (const [key, value] of Object.entries(labels)) {
    if (Buffer.byteLength(key) + Buffer.byteLength(value) > MAX_LABEL_BYTES) {
      throw invalidArgument(
        `${what}: label key and value greater than maximum size (${MAX_LABEL_BYTES} bytes), key: ${key.slice(0, 64)}: invalid argument`,
      );
    }
  }
}
