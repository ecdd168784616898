import { addon } from './addon.ts';
import { compactLowerDirectories, parseMountOptions } from './mount-options.ts';

/**
 * Mounts where nobody sees it, in a mount namespace that is gone with this call: only the descriptor keeps the mount. However the
 * process ends, nothing is left to unmount.
 *
 * @param options as `parseMountOptions` takes them; an overlay's long list of lower directories is shortened
 * @returns a descriptor of its root (O_PATH), to be closed; what is below it is reached by /proc/self/fd/N/…
 * @throws EPERM without CAP_SYS_ADMIN, and as `mount`
 */
export function mountAside(source: string, type: string, options: readonly string[]): number {
  const { flags, data } = parseMountOptions(options);
  const compacted = type === 'overlay' ? compactLowerDirectories(data) : undefined;
  const text = (compacted?.data ?? data).join(',');
  return addon().mountAside(source, type, flags, text, compacted?.folder ?? '');
}
