/** How images of an archive are called, as the client wants it. */
import type { ImageStore } from '../../proto/gen/containerd/types/transfer.ts';
import { invalidArgument } from '../../ttrpc/errors.ts';
import type { Distribution, Session } from './distribution.ts';
import type { Imported } from './import.ts';

/**
 * Names what was imported. A reference that is a prefix makes names of those in the archive; a tag alone is put behind it.
 *
 * @throws RpcError InvalidArgument when nothing gets a name
 */
export async function nameImported(
  distribution: Distribution,
  session: Session,
  images: readonly Imported[],
  store: Pick<ImageStore, 'name' | 'labels' | 'extraReferences'>,
): Promise<void> {
  let count = 0;
  for (const image of images) {
    for (const name of namesFor(image, store)) {
      await distribution.name(session, name, image.descriptor, store.labels);
      count += 1;
    }
  }
  if (count === 0)
    throw invalidArgument('the archive names no image, and no name was given: invalid argument');
}

function namesFor(
  { name, descriptor }: Imported,
  { name: wanted, extraReferences }: Pick<ImageStore, 'name' | 'extraReferences'>,
): Set<string> {
  const names = new Set<string>();
  const isFull = name?.includes('/') ?? false;
  if (wanted !== '') names.add(wanted);
  else if (extraReferences.length === 0 && isFull) names.add(name!);
  for (const { name: prefix, isPrefix, allowOverwrite, addDigest, skipNamedDigest } of extraReferences) {
    if (!isPrefix) {
      if (prefix !== '') names.add(prefix);
      continue;
    }
    const given = nameWith(prefix, name, allowOverwrite);
    if (given !== undefined) names.add(given);
    if (addDigest && !(skipNamedDigest && given !== undefined)) names.add(`${prefix}@${descriptor.digest}`);
  }
  return names;
}

function nameWith(prefix: string, name: string | undefined, allowOverwrite: boolean): string | undefined {
  if (name === undefined || name === '') return undefined;
  if (!name.includes('/')) return prefix === '' ? undefined : `${prefix}:${name}`;
  const isBelow = name.startsWith(prefix) && /^(?:$|[:@/])/.test(name.slice(prefix.length));
  return prefix === '' || allowOverwrite || isBelow ? name : undefined;
}
