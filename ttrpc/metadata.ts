/** Metadata of a call: pairs on the wire, a map of lower-case keys for those who serve it. */
import type { Metadata } from './service.ts';

export type MetadataPair = readonly [key: string, value: string];

const none: Metadata = new Map();

/** The pairs as a map. Keys are compared without case, as Go's ttrpc does; values keep their order. */
export function metadataOf(pairs: readonly MetadataPair[]): Metadata {
  if (pairs.length === 0) return none;
  const metadata = new Map<string, string[]>();
  for (const [key, value] of pairs) {
    const name = key.toLowerCase();
    const values = metadata.get(name);
    if (values === undefined) metadata.set(name, [value]);
    else values.push(value);
  }
  return metadata;
}
