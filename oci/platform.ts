/** Platforms as people write them: `linux/arm64/v8`. */
import type { Platform } from '../proto/gen/containerd/types/platform.ts';
import { invalidArgument } from '../ttrpc/errors.ts';

export type { Platform };

/** For which system and processor something is made; the field names of image-spec. */
export interface PlatformParts {
  readonly os?: string;
  readonly architecture?: string;
  readonly variant?: string;
  readonly 'os.version'?: string;
}

/** Names that others give to the same processors (`uname -m`, Node and Docker). */
const ARCHITECTURES: { readonly [name: string]: readonly [architecture: string, variant: string] } = {
  x86_64: ['amd64', ''],
  'x86-64': ['amd64', ''],
  x64: ['amd64', ''],
  i386: ['386', ''],
  ia32: ['386', ''],
  aarch64: ['arm64', ''],
  armhf: ['arm', 'v7'],
  armel: ['arm', 'v6'],
};

/** One spelling for each platform: `arm64/v8` is `arm64`, `arm` is `arm/v7`, `amd64/v1` is `amd64`. */
export function normalize({ os = '', architecture = '', variant = '' }: PlatformParts): Platform {
  const lower = architecture.toLowerCase();
  const [name, implied] = (
    Object.hasOwn(ARCHITECTURES, lower) ? ARCHITECTURES[lower] : [lower, '']
  ) as readonly [string, string];
  return {
    os: os.toLowerCase() === 'macos' ? 'darwin' : os.toLowerCase(),
    architecture: name,
    variant: variantOf(name, variant.toLowerCase() || implied),
    osVersion: '',
  };
}

function variantOf(architecture: string, variant: string): string {
  if (architecture === 'arm') return variant === '' ? 'v7' : variant.replace(/^(?=\d)/, 'v');
  if (architecture === 'arm64') return variant === 'v8' || variant === '8' ? '' : variant;
  return architecture === 'amd64' && variant === 'v1' ? '' : variant;
}

/** Of this host. */
export function hostPlatform(): Platform {
  return normalize({ os: 'linux', architecture: process.arch });
}

/** Reads `OS/ARCHITECTURE[/VARIANT]`, or an architecture or a system alone. @throws RpcError InvalidArgument */
export function parsePlatform(text: string): Platform {
  const parts = text.split('/');
  if (parts.length > 3 || parts.some((part) => !/^[A-Za-z0-9_.-]+$/.test(part)))
    throw invalidArgument(`platform ${JSON.stringify(text.slice(0, 80))} is not OS/ARCHITECTURE[/VARIANT]`);
  const [first, architecture, variant] = parts as [string, string?, string?];
  if (architecture !== undefined)
    return normalize({ os: first, architecture, ...(variant !== undefined && { variant }) });
  const host = hostPlatform();
  return /^(?:linux|windows|darwin|freebsd)$/i.test(first)
    ? normalize({ ...host, os: first })
    : normalize({ os: host.os, architecture: first });
}

export function platformText({
  os,
  architecture,
  variant,
}: Pick<Platform, 'os' | 'architecture' | 'variant'>): string {
  return [os, architecture, variant].filter((part) => part !== '').join('/') || 'unknown';
}

/** How well something made for `candidate` runs on `target`: 0 is best, undefined is not at all. */
export function rank(target: Platform, candidate: PlatformParts): number | undefined {
  const other = normalize(candidate);
  if (other.os !== target.os) return undefined;
  // Such processors run programs of their smaller kin as well; containerd takes those as a last resort.
  if (target.architecture === 'arm64' && other.architecture === 'arm') {
    const worse = rank({ ...target, architecture: 'arm', variant: 'v8' }, candidate);
    return worse === undefined ? undefined : worse + 100;
  }
  if (target.architecture === 'amd64' && other.architecture === '386') return 100;
  if (other.architecture !== target.architecture) return undefined;
  const behind = level(target) - level(other);
  return behind < 0 ? undefined : behind;
}

/** Of a processor's variant: a program for an older one runs on a newer. */
function level({ variant, architecture }: Platform): number {
  if (variant === '') return architecture === 'arm64' ? 80 : 10;
  const [, major = '0', minor = '0'] = /^v(\d+)(?:\.(\d+))?/.exec(variant) ?? [];
  return Number(major) * 10 + Number(minor);
}

/**
 * The entries that suit any of the targets, the best first for each; all of them when there are no targets.
 *
 * @param limit entries for each target at most; 0 for all
 */
export function select<T>(
  entries: readonly T[],
  platformOf: (entry: T) => PlatformParts | undefined,
  targets: readonly Platform[],
  limit: number,
): T[] {
  if (targets.length === 0) return [...entries];
  const chosen = new Set<T>();
  for (const target of targets) {
    const ranked = entries
      .map((entry) => {
        const platform = platformOf(entry);
        // An entry that does not say what it is for suits everything, but not as well as one that does.
        return { entry, rank: platform === undefined ? 1000 : rank(target, platform) };
      })
      .filter((candidate): candidate is { entry: T; rank: number } => candidate.rank !== undefined)
      .sort((one, other) => one.rank - other.rank);
    for (const { entry } of limit > 0 ? ranked.slice(0, limit) : ranked) chosen.add(entry);
  }
  return [...chosen];
}
