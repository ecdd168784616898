/**
 * Named points at which a test makes the daemon die or fail. Inert unless the environment variable MOOR_FAILPOINTS
 * names them: `bundle-made=kill,container-created=fail`.
 */
import { internal } from '../../ttrpc/errors.ts';

/** Every step of a task's life that changes the world, in the order they come. */
export type Step =
  | 'bundle-made'
  | 'shim-started'
  | 'shim-connected'
  | 'container-created'
  | 'container-started'
  | 'process-added'
  | 'process-started'
  | 'delete-begun'
  | 'container-deleted'
  | 'shim-stopped'
  | 'bundle-removed'
  | 'dead-shim-cleaned'
  | 'dead-shim-recorded'
  | 'exit-published';

type Effect = 'kill' | 'fail';

const armed = new Map<string, Effect>();
for (const entry of (process.env.MOOR_FAILPOINTS ?? '').split(',')) {
  const [step, effect] = entry.split('=');
  if (step !== undefined && (effect === 'kill' || effect === 'fail')) armed.set(step, effect);
}

/**
 * Says that a step has been done.
 * @throws RpcError Internal when a test has asked for a failure here.
 */
export function reached(step: Step): void {
  if (armed.size === 0) return;
  const effect = armed.get(step);
  if (effect === 'kill') process.kill(process.pid, 'SIGKILL');
  if (effect === 'fail') throw internal(`failed at ${step}, as the test asked`);
}
