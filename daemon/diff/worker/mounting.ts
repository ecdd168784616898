import { spawnSync } from 'node:child_process';
import { mountByKernel, parseMountOptions } from '../../../native/native.ts';
import type { Mount } from '../../../proto/gen/containerd/types/mount.ts';
import { failedPrecondition, messageOf } from '../../../ttrpc/errors.ts';

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
  const parsed = parseMountOptions(options);
  if (parsed.loop || /^fuse3?\./.test(type)) mountByProgram(type, source, options, target);
  else mountByKernel(type, source, target, parsed);
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
