import { spawnSync } from 'node:child_process';
import { constants, compactLowerDirectories, mount, parseMountOptions } from '../../../native/native.ts';
import type { Mount } from '../../../proto/gen/containerd/types/mount.ts';
import { failedPrecondition, messageOf } from '../../../ttrpc/errors.ts';

const PROPAGATION = constants.MS_SHARED | constants.MS_PRIVATE | constants.MS_SLAVE | constants.MS_UNBINDABLE;
/** mount(2) reads at most a page of data. The reserve is for what the kernel adds. */
const MOST_DATA = 4096 - 512;
const PROGRAM_LIMIT_MS = 60_000;

/**
 * Mounts what a snapshotter gave out, mount over mount.
 *
 * @throws RpcError FailedPrecondition naming the mount and the cause
 */
export function mountAll(mounts: readonly Mount[], target: string): void {
  for (const each of mounts) {
    const path = each.target === '' ? target : `${target}/${each.target}`;
    try {
      mountOne(each, path);
    } catch (error) {
      const options = each.options.join(',').slice(0, 200);
      const what = `mount ${each.type || 'bind'} ${each.source} [${options}]`;
      throw failedPrecondition(`${what}: ${messageOf(error)}`, error);
    }
  }
}

function mountOne({ type, source, options }: Mount, target: string): void {
  const { flags, data, loop } = parseMountOptions(options);
  if (loop || /^fuse3?\./.test(type)) return mountByProgram(type, source, options, target);
  const own = flags & ~PROPAGATION;
  mountWithData(type, source, target, own, data);
  if ((flags & PROPAGATION) !== 0) mount('', target, '', flags & (PROPAGATION | constants.MS_REC), '');
  const readOnlyBind = constants.MS_BIND | constants.MS_RDONLY;
  // A bind takes the flags of what it binds; only mounting it once more changes them (mount(2)).
  if ((own & readOnlyBind) === readOnlyBind) mount('', target, '', own | constants.MS_REMOUNT, '');
}

function mountWithData(
  type: string,
  source: string,
  target: string,
  flags: number,
  data: readonly string[],
): void {
  const isLong = type === 'overlay' && Buffer.byteLength(data.join(',')) > MOST_DATA;
  const compacted = isLong ? compactLowerDirectories(data) : undefined;
  if (compacted === undefined) return mount(source, target, type, flags, data.join(','));
  const before = process.cwd();
  process.chdir(compacted.folder);
  try {
    mount(source, target, type, flags, compacted.data.join(','));
  } finally {
    process.chdir(before);
  }
}

/** What needs a loop device or a program in user space: mount(8) knows how. */
function mountByProgram(type: string, source: string, options: readonly string[], target: string): void {
  const flags = options.length === 0 ? [] : ['-o', options.join(',')];
  const { status, stderr, error } = spawnSync('mount', ['-t', type, ...flags, source, target], {
    encoding: 'utf8',
    timeout: PROGRAM_LIMIT_MS,
  });
  if (error !== undefined) throw error;
  if (status !== 0) throw new Error(stderr.trim() || `mount ended with ${status}`);
}
