import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { constants, mountByKernel, parseMountOptions, unmount } from '../native/native.ts';
import type { Mount } from '../proto/gen/containerd/types/mount.ts';
import { failedPrecondition, messageOf, unimplemented } from '../ttrpc/errors.ts';
import type { Reaper } from './reaper.ts';
import { openScratch, readScratch } from './scratch.ts';

/** A filesystem may stay busy for a moment after its last process has gone. */
const BUSY_ATTEMPTS = 50;
const BUSY_PAUSE_MS = 20;
/** mount(8) may take this long; then it is killed. */
const PROGRAM_TIMEOUT_MS = 120_000;

/**
 * Mounts a container's root filesystem, mount over mount; undoes those that succeeded when one fails.
 *
 * @throws RpcError FailedPrecondition naming the mount and the cause
 */
export async function mountRootfs(mounts: readonly Mount[], target: string, reaper: Reaper): Promise<void> {
  if (mounts.length === 0) return;
  mkdirSync(target, { recursive: true, mode: 0o711 });
  try {
    for (const each of mounts) await mountOne(each, target, reaper);
  } catch (error) {
    await unmountRootfs(target);
    throw error;
  }
}

/**
 * Unmounts everything that is mounted on `target`; nothing, or no such folder, is fine. What stays busy for a second is detached:
 * it goes away by itself when its last user does.
 */
export async function unmountRootfs(target: string): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      for (;;)
        unmount(target, constants.UMOUNT_NOFOLLOW | (attempt < BUSY_ATTEMPTS ? 0 : constants.MNT_DETACH));
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      // EINVAL: nothing is mounted there (umount(2)).
      if (code === 'EINVAL' || code === 'ENOENT') return;
      if (code !== 'EBUSY' || attempt >= BUSY_ATTEMPTS) throw error;
    }
    await sleep(BUSY_PAUSE_MS);
  }
}

async function mountOne(request: Mount, target: string, reaper: Reaper): Promise<void> {
  const { type, source, options } = request;
  try {
    if (request.target !== '') throw unimplemented(`a mount below the root, at ${request.target}`);
    const parsed = parseMountOptions(options);
    if (parsed.loop || /^fuse3?\./.test(type)) await mountByProgram(request, target, reaper);
    else mountByKernel(type, source, target, parsed);
  } catch (error) {
    const what = `mount ${type || 'bind'} ${source} [${shorten(options.join(','))}] on ${target}`;
    throw failedPrecondition(`failed to mount rootfs component: ${what}: ${messageOf(error)}`, error);
  }
}

/** What needs a loop device or a program in user space: mount(8) knows how. */
async function mountByProgram(
  { type, source, options }: Mount,
  target: string,
  reaper: Reaper,
): Promise<void> {
  const flags = options.length === 0 ? [] : ['-o', options.join(',')];
  using stderr = openScratch(dirname(target));
  const program = {
    file: 'mount',
    args: ['-t', type, ...flags, source, target],
    environment: process.env,
    cwd: '.',
    descriptors: ['ignore', 'ignore', stderr.fd],
  } as const;
  const { exit } = await reaper.run(program, PROGRAM_TIMEOUT_MS);
  if (exit.status !== 0) throw new Error(readScratch(stderr).trim() || `mount: exit status ${exit.status}`);
}

function shorten(text: string): string {
  return text.length <= 200 ? text : `${text.slice(0, 200)}…`;
}
