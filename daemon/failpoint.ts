/**
 * Named points at which a test makes the daemon die or fail. Inert unless the environment variable MOOR_FAILPOINTS
 * names them: `bundle-made=kill,blob-renamed=kill@3` (at the third time). An absolute path is a file with the same text, read
 * whenever a point is reached, so that a test can change its mind while the daemon runs.
 */
import { readFileSync } from 'node:fs';
import { internal } from '../ttrpc/errors.ts';

/** Every step of a task's life that changes the world, in the order they come. */
export type TaskStep =
  | 'bundle-made'
  | 'shim-started'
  | 'shim-connected'
  | 'container-created'
  | 'container-started'
  | 'process-added'
  | 'process-started'
  | 'process-deleted'
  | 'delete-begun'
  | 'container-deleted'
  | 'shim-stopped'
  | 'bundle-removed'
  | 'dead-shim-cleaned'
  | 'dead-shim-recorded'
  | 'exit-published';

/** The same of an image's: on its way in, into snapshots, and out again. */
export type ImageStep =
  | 'lease-created'
  | 'ingest-recorded'
  | 'ingest-written'
  | 'ingest-synced'
  | 'blob-renamed'
  | 'blob-recorded'
  | 'snapshot-made'
  | 'snapshot-prepared'
  | 'layer-applied'
  | 'snapshot-committed'
  | 'image-unpacked'
  | 'image-recorded'
  | 'garbage-marked'
  | 'garbage-forgotten'
  | 'blob-removed'
  | 'snapshot-removed';

/** The same of a pod's, while it is made, stopped and removed. */
export type PodStep =
  | 'pod-recorded'
  | 'pod-files-made'
  | 'pod-netns-made'
  | 'pod-attached'
  | 'pod-registered'
  | 'pod-snapshot-made'
  | 'pod-task-created'
  | 'pod-task-started'
  | 'pod-ready'
  | 'pod-ended'
  | 'pod-task-deleted'
  | 'pod-detached'
  | 'pod-netns-removed'
  | 'pod-stopped'
  | 'pod-removing'
  | 'pod-cleared';

/** The same of a sandbox that has a shim. */
export type SandboxStep =
  | 'sandbox-bundle-made'
  | 'sandbox-shim-started'
  | 'sandbox-created'
  | 'sandbox-recorded'
  | 'sandbox-started'
  | 'sandbox-stopped'
  | 'sandbox-ended'
  | 'sandbox-doomed'
  | 'sandbox-shut-down'
  | 'sandbox-shim-gone'
  | 'sandbox-removed';

/** The same of networks and their links. */
export type NetworkStep =
  | 'network-recorded'
  | 'network-made'
  | 'network-doomed'
  | 'network-removed'
  | 'link-recorded'
  | 'link-made'
  | 'link-configured'
  | 'link-done';

/** The same of every change of the metadata. */
export type MetadataStep = 'metadata-written' | 'metadata-committed';

/** The same of a checkpoint. */
export type CheckpointStep = 'checkpoint-written' | 'checkpoint-packed' | 'checkpoint-stored';

/** The same of a container that is started again. */
export type RestartStep = 'restart-recorded' | 'restart-cleared' | 'restart-created' | 'restart-started';

/** The same of a container of a pod. */
export type PodContainerStep =
  | 'pod-container-recorded'
  | 'pod-container-snapshot-made'
  | 'pod-container-made'
  | 'pod-container-task-made'
  | 'pod-container-started'
  | 'pod-container-ended'
  | 'pod-container-doomed'
  | 'pod-container-unmounted'
  | 'pod-container-cleared';

/** The same of an event's: kept, handed to the subscribers, and its bytes in the kernel's hands. */
export type EventStep = 'event-recorded' | 'event-told' | 'event-passed-on';

export type Step =
  | MetadataStep
  | CheckpointStep
  | PodStep
  | PodContainerStep
  | RestartStep
  | SandboxStep
  | TaskStep
  | ImageStep
  | NetworkStep
  | EventStep;

interface Effect {
  readonly kind: 'kill' | 'fail';
  /** At which time. */
  readonly count: number;
}

const times = new Map<Step, number>();

function parse(text: string): Map<string, Effect> {
  const effects = new Map<string, Effect>();
  for (const entry of text.trim().split(',')) {
    const [, step, kind, count = '1'] = /^([a-z-]+)=(kill|fail)(?:@(\d+))?$/.exec(entry) ?? [];
    if (step !== undefined) effects.set(step, { kind: kind as Effect['kind'], count: Number(count) });
  }
  return effects;
}

/**
 * Says that a step has been done.
 * @throws RpcError Internal when a test has asked for a failure here.
 */
export function reached(step: Step): void {
  const given = process.env.MOOR_FAILPOINTS ?? '';
  if (given === '') return;
  const effect = parse(given.startsWith('/') ? readFileSync(given, 'utf8') : given).get(step);
  if (effect === undefined) return;
  const count = (times.get(step) ?? 0) + 1;
  times.set(step, count);
  // A point without a count has its effect each time.
  if (count < effect.count) return;
  if (effect.kind === 'kill') process.kill(process.pid, 'SIGKILL');
  throw internal(`failed at ${step}, as the test asked`);
}
