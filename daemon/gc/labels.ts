/** The labels by which clients tell what belongs together (containerd, docs/garbage-collection.md). */
import type { Reference } from './resource.ts';

interface Labels {
  readonly [key: string]: string;
}

const PREFIX = 'containerd.io/gc.';
const ROOT = `${PREFIX}root`;
const EXPIRE = `${PREFIX}expire`;
const FLAT = `${PREFIX}flat`;

export function isRoot(labels: Labels): boolean {
  // With a suffix too, as containerd 2 has it.
  return Object.keys(labels).some((key) => key.startsWith(ROOT));
}

export function isFlat(labels: Labels): boolean {
  return Object.hasOwn(labels, FLAT);
}

/** When the labelled thing expires, in milliseconds since 1970. A time that cannot be read counts as none. */
export function expiryOf(labels: Labels): number | undefined {
  if (!Object.hasOwn(labels, EXPIRE)) return undefined;
  // RFC 3339 and no other of the forms that `Date` reads.
  const text = labels[EXPIRE]!;
  if (!/^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)$/.test(text)) return undefined;
  const time = Date.parse(text);
  return Number.isNaN(time) ? undefined : time;
}

/** What the labels say that the labelled thing needs. */
export function referencesOf(labels: Labels): Reference[] {
  return read(labels, `${PREFIX}ref.`, ['content', 'image']);
}

/** What the labels say that the labelled thing lives as long as. */
export function backReferencesOf(labels: Labels): Reference[] {
  return read(labels, `${PREFIX}bref.`, ['content', 'image', 'container']);
}

/** Labels `<prefix><kind>` and `<prefix>snapshot.<snapshotter>`; more than one of a kind by what follows: `.0`, `/config`. */
function read(labels: Labels, prefix: string, kinds: readonly string[]): Reference[] {
  const references: Reference[] = [];
  for (const key of Object.keys(labels)) {
    if (!key.startsWith(prefix)) continue;
    const kind = kindOf(key.slice(prefix.length), kinds);
    if (kind !== undefined) references.push({ kind, id: labels[key]! });
  }
  return references;
}

function kindOf(name: string, kinds: readonly string[]): string | undefined {
  if (name.startsWith('snapshot.')) return `snapshot/${name.slice('snapshot.'.length).split('/')[0]}`;
  return kinds.find((kind) => name === kind || name.startsWith(`${kind}.`) || name.startsWith(`${kind}/`));
}
