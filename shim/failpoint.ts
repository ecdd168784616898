/**
 * Named points at which a test makes the shim die or fail, as `daemon/failpoint.ts` does for the daemon. Inert unless the environment
 * variable MOOR_FAILPOINTS is a file's path, which the daemon hands on when it has one: `rootfs-mounted=kill`.
 */
import { readFileSync } from 'node:fs';
import { getPid } from '../native/native.ts';
import { internal } from '../ttrpc/errors.ts';

/** Every step of the shim's that changes the world. */
export type ShimStep =
  | 'rootfs-mounted'
  | 'runtime-created'
  | 'runtime-started'
  | 'exec-running'
  | 'exit-recorded'
  | 'event-due'
  | 'runtime-deleted'
  | 'rootfs-unmounted';

/**
 * Says that a step has been done.
 * @throws RpcError Internal when a test has asked for a failure here.
 */
export function reached(step: ShimStep): void {
  const file = process.env['MOOR_FAILPOINTS'] ?? '';
  if (!file.startsWith('/')) return;
  const [, kind] = new RegExp(`(?:^|,)${step}=(kill|fail)`).exec(readFileSync(file, 'utf8')) ?? [];
  // The pid that Node knows is the template's.
  if (kind === 'kill') process.kill(getPid(), 'SIGKILL');
  if (kind !== undefined) throw internal(`failed at ${step}, as the test asked`);
}
