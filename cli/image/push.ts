import type { Descriptor, Progress } from '../../client/client.ts';
import { Failure } from '../failure.ts';
import { interruptible } from '../interrupt.ts';
import { showProgress } from '../progress.ts';
import { isTraced, registryOptions, type RegistryFlags } from '../registry-flags.ts';
import type { Session } from '../session.ts';

export interface PushFlags extends RegistryFlags {
  readonly manifest?: string;
  readonly manifestType: string;
  readonly platform?: readonly string[];
  readonly maxConcurrentUploadedLayers?: number;
  readonly allowNonDistributableBlobs?: boolean;
  readonly quiet?: boolean;
}

export async function push(
  session: Session,
  reference: string,
  local: string | undefined,
  flags: PushFlags,
): Promise<void> {
  const { client } = session;
  const registry = await registryOptions(flags, session);
  const source = await sourceFor(session, reference, local, flags);
  const { quiet = false, maxConcurrentUploadedLayers = 0, allowNonDistributableBlobs = false } = flags;
  using display = showProgress(quiet ? undefined : process.stdout, {
    title: reference,
    plain: isTraced(flags),
  });
  await interruptible(session, 'what has arrived is not sent again by the same command', (call) =>
    client.transfers.push(reference, {
      ...call,
      ...registry,
      source,
      concurrency: maxConcurrentUploadedLayers,
      nonDistributable: allowNonDistributableBlobs,
      onProgress: (progress: Progress) => display.update(progress),
    }),
  );
  display.finish();
  if (quiet) console.log(reference);
}

/**
 * What to send. One platform's image is sent as it is, without the index around it, which would name what was not sent: a registry
 * refuses that.
 */
async function sourceFor(
  { client, sdk, call }: Session,
  reference: string,
  local: string | undefined,
  { manifest, manifestType, platform }: PushFlags,
): Promise<string | Descriptor> {
  if (manifest !== undefined) {
    if (local !== undefined || platform !== undefined)
      throw new Failure('--manifest says what to push: an image or a platform does not go with it');
    const { digest, size } = await client.content.info(manifest, call);
    return { digest, size, mediaType: manifestType, annotations: {} };
  }
  const name = local ?? reference;
  if (platform === undefined) return name;
  if (platform.length > 1)
    throw new Failure('one --platform, or all of them: an index cannot be pushed in part');
  const image = await client.images.get(name, call);
  const found = await client.images.manifest(image, { ...call, platform: sdk.parsePlatform(platform[0]!) });
  const { mediaType, digest, size } = found.descriptor;
  return { mediaType, digest, size: BigInt(size), annotations: {} };
}
