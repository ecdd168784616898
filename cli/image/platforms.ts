/** Flags that transfers share. */
import type { Platforms } from '../../client/client.ts';
import { Failure } from '../failure.ts';
import { parseLabels } from '../labels.ts';
import type { Session } from '../session.ts';

export interface PlatformFlags {
  readonly platform?: readonly string[];
  readonly allPlatforms?: boolean;
}

/** @returns undefined for this host's */
export function platformsOf(
  { sdk }: Session,
  { platform, allPlatforms }: PlatformFlags,
): Platforms | undefined {
  if (allPlatforms === true) {
    if (platform !== undefined) throw new Failure('--platform and --all-platforms exclude each other');
    return 'all';
  }
  return platform?.map((text) => sdk.parsePlatform(text));
}

export interface SnapshotterFlags {
  readonly snapshotter?: string;
}

/** Empty for the namespace's own. */
export function snapshotterOf({ snapshotter }: SnapshotterFlags): string {
  return snapshotter ?? process.env['CONTAINERD_SNAPSHOTTER'] ?? '';
}

export function labelsOf(pairs: readonly string[] | undefined): { [key: string]: string } {
  return parseLabels(pairs ?? []);
}
