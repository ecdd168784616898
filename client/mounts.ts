/** Mounting snapshots on this host, for which the caller needs to be root. */
import { spawnSync } from 'node:child_process';
import { constants, mountByKernel, parseMountOptions, unmount } from '../native/native.ts';
import type { Mount } from '../proto/gen/containerd/types/mount.ts';
import { failedPrecondition, messageOf } from '../ttrpc/errors.ts';

/**
 * Mounts one over the other; undoes those that succeeded when one fails.
 *
 * @throws RpcError FailedPrecondition naming the mount and the cause
 */
export function mountAll(mounts: readonly Mount[], target: string): void {
  let done = 0;
  try {
    for (const each of mounts) {
      mountOne(each, target);
      done += 1;
    }
  } catch (error) {
    for (; done > 0; done -= 1) unmount(target, constants.UMOUNT_NOFOLLOW | constants.MNT_DETACH);
    throw error;
  }
}

function mountOne({ type, source, options }: Mount, target: string): void {
  try {
    const parsed = parseMountOptions(options);
    if (parsed.loop || /^fuse3?\./.test(type)) mountByProgram({ type, source, options }, target);
    else mountByKernel(type, source, target, parsed);
  } catch (error) {
    throw failedPrecondition(`cannot mount ${type} ${source} on ${target}: ${messageOf(error)}`, error);
  }
}

/** What needs a loop device or a program in user space: mount(8) knows how. */
function mountByProgram({ type, source, options }: Omit<Mount, 'target'>, target: string): void {
  const flags = options.length === 0 ? [] : ['-o', options.join(',')];
  const { status, stderr, error } = spawnSync('mount', ['-t', type, ...flags, source, target], {
    encoding: 'utf8',
  });
  if (error !== undefined) throw error;
  if (status !== 0) throw new Error(stderr.trim() || `mount has failed (${status})`);
}

/**
 * Unmounts everything that is mounted on a folder; nothing is fine.
 *
 * @throws RpcError FailedPrecondition when it is in use
 */
export function unmountAll(target: string): void {
  for (;;) {
    try {
      unmount(target, constants.UMOUNT_NOFOLLOW);
    } catch (error) {
      // EINVAL: nothing is mounted there (umount(2)).
      if ((error as NodeJS.ErrnoException).code === 'EINVAL') return;
      throw failedPrecondition(`cannot unmount ${target}: ${messageOf(error)}`, error);
    }
  }
}
