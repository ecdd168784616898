/** References: which image of which repository of which registry. */
import { invalidArgument } from '../../ttrpc/errors.ts';
import { type Digest, parseDigest } from '../content/digest.ts';

export interface Reference {
  /** The registry, with its port: `docker.io`, `127.0.0.1:5000`. */
  readonly host: string;
  readonly repository: string;
  readonly tag: string | undefined;
  readonly digest: Digest | undefined;
}

// The grammars of distribution-spec ("Pulling manifests").
const component = '[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*';
const REPOSITORY = new RegExp(`^${component}(?:/${component})*$`);
const TAG = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;
const HOST =
  /^(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9A-Fa-f:]+\])(?::\d{1,5})?$/;
const MAX_LENGTH = 1024;
const MAX_SHOWN = 160;
const DIGEST_AT_END = /@[^@/]*:[0-9A-Fa-f]{32,}$/;

/**
 * Reads `HOST/REPOSITORY[:TAG][@DIGEST]`. There is no default host, as with containerd: clients expand short names.
 *
 * @throws RpcError InvalidArgument that names the reference, but for credentials that somebody has written into it
 */
export function parseReference(text: string): Reference {
  const refused = (why: string): Error =>
    invalidArgument(`reference ${JSON.stringify(withoutCredentials(text))}: ${why}: invalid argument`);
  if (text.length > MAX_LENGTH) throw refused('too long');
  const slash = text.indexOf('/');
  if (slash < 1) throw refused('no registry host before the first slash');
  const host = text.slice(0, slash);
  if (host.includes('@')) throw refused('credentials are not given in a reference');
  if (!HOST.test(host)) throw refused('malformed registry host');
  const [name = '', digest, ...more] = text.slice(slash + 1).split('@');
  if (more.length > 0) throw refused('more than one digest');
  const colon = name.indexOf(':');
  const repository = colon < 0 ? name : name.slice(0, colon);
  const tag = colon < 0 ? undefined : name.slice(colon + 1);
  if (!REPOSITORY.test(repository)) throw refused('malformed repository');
  if (tag !== undefined && !TAG.test(tag)) throw refused('malformed tag');
  return { host, repository, tag, digest: digest === undefined ? undefined : parseDigest(digest) };
}

/** As much of it as can be told and logged: what stands before an `@` may be a password, unless a digest follows. */
function withoutCredentials(text: string): string {
  const name = text.replace(DIGEST_AT_END, '');
  const at = name.lastIndexOf('@');
  return (at < 0 ? text : `…${text.slice(at)}`).slice(0, MAX_SHOWN);
}

/** Without tag and digest. */
export function nameOf({ host, repository }: Reference): string {
  return `${host}/${repository}`;
}

/** What the registry is asked for. @throws RpcError InvalidArgument when the reference names no image */
export function objectOf(reference: Reference): string {
  const object = reference.digest ?? reference.tag;
  if (object === undefined)
    throw invalidArgument(`reference ${nameOf(reference)}: a tag or a digest is needed: invalid argument`);
  return object;
}
