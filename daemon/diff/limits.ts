import type { PluginSettings } from '../plugin-settings.ts';

/** What a layer may cost. Layers are hostile input: without limits, a few megabytes can fill any disk. */
export interface Limits {
  /** Members of the archive, whiteouts and links included. */
  readonly entries: number;
  /** Bytes of the uncompressed archive, and of any one file with its holes. */
  readonly bytes: number;
  /** How many times larger than the blob the archive may be, once it is above `freeBytes`. */
  readonly ratio: number;
  /** Bytes up to which an archive may be, whatever its blob's size: what compresses extremely well is mostly small. */
  readonly freeBytes: number;
  /** Bytes of an entry's name or a link's target. */
  readonly pathBytes: number;
  /** Folders above an entry. */
  readonly depth: number;
}

/**
 * The limits unless an operator says otherwise. The largest public images have layers of some 20 GB and some hundred thousand
 * files; ordinary ones compress by 2 to 5 times, text and zeros by 100 at times, and gzip ends at 1,032.
 */
export const defaultLimits: Limits = {
  entries: 1_000_000,
  bytes: 64 * 1024 ** 3,
  ratio: 200,
  freeBytes: 1024 ** 3,
  // PATH_MAX of linux/limits.h; longer ones could not be used anyway.
  pathBytes: 4096,
  depth: 512,
};

/** The limits that a configuration gives. */
export function limitsFrom(settings: PluginSettings['io.containerd.differ.v1.walking']): Limits {
  return {
    entries: settings.max_entries,
    bytes: settings.max_bytes,
    ratio: settings.max_ratio,
    freeBytes: settings.max_ratio_from_bytes,
    pathBytes: settings.max_path_bytes,
    depth: settings.max_depth,
  };
}

/** NAME_MAX of linux/limits.h, which no filesystem exceeds. */
export const NAME_BYTES = 255;

/** How large the archive inside a blob of `size` bytes may be. */
export function archiveLimit(limits: Limits, size: number): number {
  return Math.min(limits.bytes, Math.max(limits.freeBytes, size * limits.ratio));
}
