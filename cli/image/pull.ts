import type { Image, Progress, PullOptions } from '../../client/client.ts';
import { interruptible } from '../interrupt.ts';
import { showProgress } from '../progress.ts';
import { isTraced, registryOptions, type RegistryFlags } from '../registry-flags.ts';
import type { Session } from '../session.ts';
import {
  labelsOf,
  type PlatformFlags,
  platformsOf,
  type SnapshotterFlags,
  snapshotterOf,
} from './platforms.ts';

export interface PullFlags extends RegistryFlags, PlatformFlags, SnapshotterFlags {
  readonly label?: readonly string[];
  readonly allMetadata?: boolean;
  readonly metadataOnly?: boolean;
  readonly unpack: boolean;
  readonly printChainid?: boolean;
  readonly maxConcurrentDownloads?: number;
  readonly quiet?: boolean;
}

export async function pull(session: Session, reference: string, flags: PullFlags): Promise<void> {
  const { client, sdk, call } = session;
  const image = await fetchImage(session, reference, flags);
  if (flags.printChainid === true) {
    const platforms = platformsOf(session, flags);
    const wanted = platforms === undefined || platforms === 'all' ? [sdk.hostPlatform()] : platforms;
    for (const platform of wanted)
      console.log(`image chain ID: ${(await client.images.chainId(image, { ...call, platform })) ?? '-'}`);
  }
}

/** Pulls, and shows how far it is. */
export async function fetchImage(session: Session, reference: string, flags: PullFlags): Promise<Image> {
  const { client } = session;
  const platforms = platformsOf(session, flags);
  const registry = await registryOptions(flags, session);
  const { allMetadata = false, metadataOnly = false, maxConcurrentDownloads = 0, quiet = false } = flags;
  using display = showProgress(quiet ? undefined : process.stdout, {
    title: reference,
    plain: isTraced(flags),
  });
  const image = await interruptible(
    session,
    'what has come is kept for a while: the same command goes on from there',
    (call) => {
      const options: PullOptions = {
        ...call,
        ...registry,
        labels: labelsOf(flags.label),
        ...(platforms !== undefined && { platforms }),
        allMetadata,
        metadataOnly,
        unpack: flags.unpack,
        snapshotter: snapshotterOf(flags),
        concurrency: maxConcurrentDownloads,
        onProgress: (progress: Progress) => display.update(progress),
      };
      return client.transfers.pull(reference, options);
    },
  );
  display.finish();
  if (quiet) console.log(image.name);
  return image;
}
