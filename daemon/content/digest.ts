/** Digests: the names of content, which say what is in it. */
import { invalidArgument } from '../../ttrpc/errors.ts';

declare const brand: unique symbol;
/** `sha256:` and 64 hexadecimal digits, or its kin with SHA-384 and SHA-512. Safe as part of a path. */
export type Digest = string & { readonly [brand]: 'Digest' };

/** Hexadecimal digits of a digest, by algorithm (image-spec, descriptor.md#digests; SHA-384 as Go's clients know it). */
const LENGTHS: { readonly [algorithm: string]: number } = { sha256: 64, sha384: 96, sha512: 128 };

/** Why a text is no digest; undefined when it is one. */
function mistakeIn(value: string): string | undefined {
  const colon = value.indexOf(':');
  if (colon < 1) return 'invalid checksum digest format';
  const algorithm = value.slice(0, colon);
  const encoded = value.slice(colon + 1);
  if (!/^[a-z0-9]+(?:[.+_-][a-z0-9]+)*$/.test(algorithm)) return 'invalid checksum digest format';
  if (!Object.hasOwn(LENGTHS, algorithm)) return 'unsupported digest algorithm';
  if (encoded.length !== LENGTHS[algorithm]) return 'invalid checksum digest length';
  return /^[0-9a-f]+$/.test(encoded) ? undefined : 'invalid checksum digest format';
}

export function isDigest(value: string): value is Digest {
  return mistakeIn(value) === undefined;
}

/** @throws RpcError InvalidArgument that names the value, shortened */
export function parseDigest(value: string): Digest {
  const mistake = mistakeIn(value);
  if (mistake === undefined) return value as Digest;
  throw invalidArgument(`digest ${JSON.stringify(value.slice(0, 160))}: ${mistake}: invalid argument`);
}

/** A digest where none is allowed too: undefined for an empty text. @throws RpcError InvalidArgument */
export function parseExpected(value: string): Digest | undefined {
  return value === '' ? undefined : parseDigest(value);
}

/** Of finished SHA-256 digits. */
export function sha256Digest(hexadecimal: string): Digest {
  return `sha256:${hexadecimal}` as Digest;
}

export function splitDigest(digest: Digest): { algorithm: string; encoded: string } {
  const colon = digest.indexOf(':');
  return { algorithm: digest.slice(0, colon), encoded: digest.slice(colon + 1) };
}

export const algorithms: readonly string[] = Object.keys(LENGTHS);
