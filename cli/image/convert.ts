import type { DescriptorJson, LayerFormat } from '../../client/client.ts';
import { Failure } from '../failure.ts';
import { interruptible } from '../interrupt.ts';
import type { Session } from '../session.ts';
import { binarySize } from '../size.ts';
import { type PlatformFlags, platformsOf } from './platforms.ts';

export interface ConvertFlags extends PlatformFlags {
  readonly uncompress?: boolean;
  readonly zstd?: boolean;
  readonly gzip?: boolean;
  readonly level?: number;
  readonly oci?: boolean;
}

/** Milliseconds after which a conversion that was killed leaves its parts to be collected. */
const LEASE_LIFE = 24 * 60 * 60 * 1000;

export async function convert(
  session: Session,
  source: string,
  target: string,
  flags: ConvertFlags,
): Promise<void> {
  const { client, sdk } = session;
  const layers = formatOf(flags);
  const { level, oci = false } = flags;
  const chosen = platformsOf(session, flags);
  const platforms = chosen === undefined ? [sdk.hostPlatform()] : chosen === 'all' ? undefined : chosen;
  const image = await interruptible(session, 'no image has been made', async (call) => {
    const { id } = await client.leases.create({ ...call, expires: LEASE_LIFE });
    try {
      return await client.withLease(id).images.convert(source, target, {
        ...call,
        ...(layers !== undefined && { layers }),
        ...(level !== undefined && { level }),
        oci,
        ...(platforms !== undefined && { platforms }),
        onLayer: tellLayer,
      });
    } finally {
      await client.leases.delete(id);
    }
  });
  console.log(image.target.digest);
}

function tellLayer(from: DescriptorJson, to: DescriptorJson): void {
  if (process.stderr.isTTY)
    console.error(`layer ${from.digest.slice(7, 19)}: ${binarySize(from.size)} → ${binarySize(to.size)}`);
}

function formatOf({ uncompress, zstd, gzip, level }: ConvertFlags): LayerFormat | undefined {
  const formats: LayerFormat[] = [];
  if (uncompress === true) formats.push('uncompressed');
  if (zstd === true) formats.push('zstd');
  if (gzip === true) formats.push('gzip');
  if (formats.length > 1) throw new Failure('--uncompress, --zstd and --gzip exclude each other');
  const [format] = formats;
  if (level !== undefined && (format === undefined || format === 'uncompressed'))
    throw new Failure('--level goes with --zstd or --gzip');
  const most = format === 'zstd' ? 22 : 9;
  if (level !== undefined && level > most) throw new Failure(`--level: ${format} has levels up to ${most}`);
  return format;
}
