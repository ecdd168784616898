/** Overlay mounts taken apart: the layers they are made of. */
import type { Mount } from '../../proto/gen/containerd/types/mount.ts';

export interface OverlayLayers {
  /** The folder that is written to; undefined for a view. */
  readonly upper: string | undefined;
  /** The folders below, the highest first. */
  readonly lowers: readonly string[];
  /** Options beside the folders. */
  readonly others: readonly string[];
}

/**
 * The folders of an overlay mount.
 *
 * @returns undefined for mounts of another kind, and for overlays with folders in a form that only the kernel reads (escaped
 *          colons, data-only layers)
 */
export function overlayLayers(mounts: readonly Mount[]): OverlayLayers | undefined {
  const [only, ...more] = mounts;
  if (only === undefined || more.length > 0 || only.type !== 'overlay' || only.target !== '')
    return undefined;
  let upper: string | undefined;
  let lowers: string[] = [];
  const others: string[] = [];
  for (const option of only.options) {
    if (option.startsWith('upperdir=')) upper = option.slice('upperdir='.length);
    else if (option.startsWith('lowerdir=')) lowers = option.slice('lowerdir='.length).split(':');
    else if (!option.startsWith('workdir=')) others.push(option);
  }
  const isPlain = lowers.every((path) => path.startsWith('/') && !path.includes('\\'));
  return isPlain ? { upper, lowers, others } : undefined;
}

/** The folders that show the same tree as the mounts, the highest first, where that can be told. */
export function layersOf(mounts: readonly Mount[]): readonly string[] | undefined {
  const [only, ...more] = mounts;
  if (only === undefined || more.length > 0) return undefined;
  if (only.options.some((option) => option === 'bind' || option === 'rbind')) return [only.source];
  const layers = overlayLayers(mounts);
  if (layers === undefined) return undefined;
  return layers.upper === undefined ? layers.lowers : [layers.upper, ...layers.lowers];
}

/** Mounts that show one tree made of folders, without being able to change it. */
export function readOnlyMounts(lowers: readonly string[], others: readonly string[] = []): Mount[] {
  const [only, ...more] = lowers;
  if (only === undefined) return [];
  // An overlay of a single folder is refused by the kernel.
  if (more.length === 0) return [{ type: 'bind', source: only, target: '', options: ['bind', 'ro'] }];
  const lowerdir = `lowerdir=${lowers.join(':')}`;
  return [{ type: 'overlay', source: 'overlay', target: '', options: ['ro', ...others, lowerdir] }];
}
