/** What is known of images. */
import type { Image } from '../../client/client.ts';
import { explain, FAILURE_STATUS } from '../failure.ts';
import { labelText, parseLabels } from '../labels.ts';
import type { Session } from '../session.ts';
import { binarySize } from '../size.ts';
import { type FormatOptions, print, printListing } from '../table.ts';
import { type SnapshotterFlags, snapshotterOf } from './platforms.ts';

export interface ListFlags extends FormatOptions {
  readonly quiet?: boolean;
}

export async function list(session: Session, filters: string[], flags: ListFlags): Promise<void> {
  const { client, sdk, call } = session;
  const images = await client.images.list(filters, call);
  if (flags.quiet === true) return print(images.map(({ name }) => name));
  const entries = [];
  for (const image of images) {
    const { name, target, labels, createdAt, updatedAt } = image;
    // An image may be here in part; that is shown, not fatal, as with ctr.
    const size = await told(session, image, () => client.images.size(image, call));
    const parts = await told(session, image, () => client.images.platforms(image, call));
    const platforms = [
      ...new Set(
        (parts ?? []).map(({ os = '', architecture = '', variant = '' }) =>
          sdk.platformText({ os, architecture, variant }),
        ),
      ),
    ].sort();
    const { mediaType, digest } = target;
    const times = { createdAt: sdk.dateOf(createdAt), updatedAt: sdk.dateOf(updatedAt) };
    entries.push({ name, mediaType, digest, size: size ?? 0, platforms, labels, ...times });
  }
  await printListing(
    {
      header: ['REF', 'TYPE', 'DIGEST', 'SIZE', 'PLATFORMS', 'LABELS'],
      rows: entries.map(({ name, mediaType, digest, size, platforms, labels }) => [
        name,
        mediaType,
        digest,
        binarySize(size),
        platforms.join(',') || '-',
        labelText(labels) || '-',
      ]),
      json: entries,
      spacing: [1, 1],
    },
    flags,
  );
}

async function told<T>({ globals }: Session, { name }: Image, ask: () => Promise<T>): Promise<T | undefined> {
  try {
    return await ask();
  } catch (error) {
    console.error(`moor: image ${name}: ${explain(error, globals)[0]?.replace(/^moor: /, '')}`);
    return undefined;
  }
}

export interface CheckFlags extends FormatOptions, SnapshotterFlags {
  readonly quiet?: boolean;
}

export async function check(session: Session, filters: string[], flags: CheckFlags): Promise<void> {
  const { client } = session;
  const images = await client.images.list(filters, session.call);
  const entries = [];
  for (const image of images) entries.push(await checkOne(session, image, flags));
  if (flags.quiet === true)
    return print(entries.filter(({ isComplete }) => isComplete).map(({ name }) => name));
  if (images.length === 0 && flags.format === 'columns') return;
  await printListing(
    {
      header: ['REF', 'TYPE', 'DIGEST', 'STATUS', 'SIZE', 'UNPACKED'],
      rows: entries.map(({ name, mediaType, digest, status, size, isUnpacked }) => [
        name,
        mediaType,
        digest,
        status,
        size,
        String(isUnpacked),
      ]),
      json: entries,
      spacing: [1, 1],
      filled: 'header',
    },
    flags,
  );
}

async function checkOne(session: Session, image: Image, flags: CheckFlags) {
  const { client, call } = session;
  const { name, target } = image;
  const found = await told(session, image, () => client.images.check(image, call));
  const isUnpacked = await told(session, image, () =>
    client.images.isUnpacked(image, { ...call, snapshotter: snapshotterOf(flags) }),
  );
  if (found === undefined || isUnpacked === undefined) process.exitCode = FAILURE_STATUS;
  const common = {
    name,
    mediaType: target.mediaType,
    digest: target.digest,
    isUnpacked: isUnpacked === true,
  };
  if (found === undefined) return { ...common, status: 'error', size: '-', isComplete: false };
  const { isAvailable, required, present, missing } = found;
  const bytes = (parts: readonly { readonly size: number }[]): string =>
    binarySize(parts.reduce((sum, { size }) => sum + size, 0));
  if (!isAvailable) {
    const status = `unavailable (${present.length}/?)`;
    return { ...common, status, size: `${bytes(present)}/?`, isComplete: false };
  }
  const isComplete = missing.length === 0;
  const status = `${isComplete ? 'complete' : 'incomplete'} (${present.length}/${required.length})`;
  return { ...common, status, size: `${bytes(present)}/${bytes(required)}`, isComplete };
}

export interface UsageFlags extends FormatOptions, SnapshotterFlags {
  readonly platform?: string;
}

/** Content as it lies in the store, and the snapshots of the layers; what images share is counted for each. */
export async function usage(session: Session, names: string[], flags: UsageFlags): Promise<void> {
  const { client, sdk, call } = session;
  const platform = flags.platform === undefined ? sdk.hostPlatform() : sdk.parsePlatform(flags.platform);
  const snapshots = client.snapshots(snapshotterOf(flags));
  const entries = [];
  for (const name of names) {
    const image = await client.images.get(name, call);
    const { rootfs } = await client.images.config(image, { ...call, platform });
    let unpacked = 0n;
    let inodes = 0n;
    for (const key of sdk.chainIds(rootfs?.diff_ids ?? [])) {
      try {
        const layer = await snapshots.usage(key, call);
        unpacked += layer.bytes;
        inodes += layer.inodes;
      } catch (error) {
        // Not unpacked, or not to the end.
        if (!sdk.isCode(error, sdk.Code.NotFound)) throw error;
      }
    }
    const content = await client.images.size(image, { ...call, platform });
    entries.push({ name, content, unpacked: Number(unpacked), inodes: Number(inodes) });
  }
  await printListing(
    {
      header: ['REF', 'CONTENT', 'UNPACKED', 'INODES', 'TOTAL'],
      rows: entries.map(({ name, content, unpacked, inodes }) => [
        name,
        binarySize(content),
        binarySize(unpacked),
        String(inodes),
        binarySize(content + unpacked),
      ]),
      json: entries,
      spacing: [1, 1],
    },
    flags,
  );
}

export interface RemoveFlags {
  readonly sync?: boolean;
}

export async function remove(
  session: Session,
  names: string[],
  { sync = false }: RemoveFlags,
): Promise<void> {
  const { client, sdk, call, globals } = session;
  for (const [index, name] of names.entries()) {
    try {
      await client.images.delete(name, { ...call, sync: sync && index === names.length - 1 });
      console.log(name);
    } catch (error) {
      for (const line of explain(error, globals)) console.error(line);
      // Removing twice is no mistake, as with ctr.
      if (!sdk.isCode(error, sdk.Code.NotFound)) process.exitCode = FAILURE_STATUS;
    }
  }
}

export interface TagFlags {
  readonly force?: boolean;
}

export async function tag(
  session: Session,
  source: string,
  names: string[],
  { force = false }: TagFlags,
): Promise<void> {
  const { client, call } = session;
  for (const name of names) {
    await client.images.tag(source, name, { ...call, force });
    console.log(name);
  }
}

export interface LabelFlags {
  readonly replaceAll?: boolean;
}

export async function label(
  { client, call }: Session,
  name: string,
  pairs: string[],
  { replaceAll = false }: LabelFlags,
): Promise<void> {
  const given = parseLabels(pairs);
  // With the field mask of all labels there is no difference between an empty label and one to clear.
  const labels = replaceAll
    ? Object.fromEntries(Object.entries(given).filter(([, value]) => value !== ''))
    : given;
  console.log(labelText(await client.images.label(name, labels, { ...call, replace: replaceAll })));
}
