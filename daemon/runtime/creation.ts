/** Making a task: bundle, shim, container; and unmaking all of it when a step fails. */
import { join } from 'node:path';
import type { Mount } from '../../proto/gen/containerd/types/mount.ts';
import { Any } from '../../proto/gen/google/protobuf/any.ts';
import {
  Code,
  RpcError,
  alreadyExists,
  internal,
  isCode,
  resourceExhausted,
  toRpcError,
} from '../../ttrpc/errors.ts';
import { storageError } from '../content/storage-error.ts';
import { type Bundle, type BundleContent, hasCode } from './bundle.ts';
import { cleanUpAfterShim, stopShim } from './cleanup.ts';
import { reached } from '../failpoint.ts';
import { isForWant, starved, whenPossible } from '../shortage.ts';
import type { StartedShim } from './launcher.ts';
import { Shim } from './shim.ts';
import type { Task } from './task.ts';

/** What the shim is asked to create. */
export interface ContainerRequest {
  /** The OCI spec, JSON. */
  readonly spec: Uint8Array;
  readonly options: Any | undefined;
  readonly rootfs: readonly Mount[];
  readonly stdin: string;
  readonly stdout: string;
  readonly stderr: string;
  readonly terminal: boolean;
  /** Directory of a checkpoint to restore from; empty for none. */
  readonly checkpoint: string;
  /** Puts a checkpoint to restore from into the directory; it stays there with the bundle. */
  readonly restore?: ((directory: string) => Promise<void>) | undefined;
}

/** Longer than any runtime takes, hooks included; a shim that has not answered by then is stuck. */
const CREATE_TIMEOUT_MS = 5 * 60_000;

/** Of a shim's log, what is told about its early death. */
const LOG_TAIL_BYTES = 1024;

/** What the makers of tasks share. */
export interface Yard {
  /** Has a bundle go that is no task's, with all its files. */
  readonly discard: (bundle: Bundle) => Promise<void>;
  /** The client has been answered, and this goes on; the task's name is taken until then. Never rejects. */
  readonly goesOn: (undoing: Promise<void>) => void;
}

/** How far a creation came. */
interface Progress {
  bundle: boolean;
  /** What it is to be restored from is being unpacked. */
  restoring: boolean;
  started: StartedShim | undefined;
  shim: Shim | undefined;
}

/**
 * Makes the task's bundle, starts its shim and has it create the container. When that fails, all of it is undone before the
 * error is thrown, but what there are no descriptors or processes for now; and so it is when the caller goes away, since it will take the
 * call as failed.
 *
 * @throws RpcError
 */
export async function createContainer(
  task: Task,
  request: ContainerRequest,
  signal: AbortSignal,
  yard: Yard,
): Promise<void> {
  const progress: Progress = { bundle: false, restoring: false, started: undefined, shim: undefined };
  try {
    await make(task, request, signal, progress, yard);
  } catch (error) {
    const failure = explained(task, progress, error);
    await undo(task, progress, error, yard);
    throw failure;
  }
}

async function make(
  task: Task,
  request: ContainerRequest,
  signal: AbortSignal,
  progress: Progress,
  yard: Yard,
): Promise<void> {
  const { bundle, launcher } = task;
  const { spec, options, restore, ...rest } = request;
  await makeBundle(task, { spec, options: options && Any.encode(options).finish() }, yard);
  progress.bundle = true;
  reached('bundle-made');
  const restored = join(bundle.path, 'checkpoint');
  progress.restoring = true;
  await restore?.(restored);
  progress.restoring = false;
  const checkpoint = rest.checkpoint || (restore === undefined ? '' : restored);
  task.followLog();
  progress.started = await launcher.start(bundle);
  reached('shim-started');
  progress.shim = await Shim.connect(progress.started.bootstrap, signal);
  reached('shim-connected');
  const { pid } = await progress.shim.task.create(
    { ...rest, checkpoint, rootfs: [...rest.rootfs], id: task.id, bundle: bundle.path, options },
    { signal, timeout: CREATE_TIMEOUT_MS },
  );
  // Not every shim writes it, and without it a later daemon takes the container for one that never was.
  if (!launcher.own && bundle.readInitPid() === 0) bundle.writeInitPid(pid);
  reached('container-created');
  task.live(progress.shim, pid);
}

async function makeBundle({ bundle }: Task, content: BundleContent, { discard }: Yard): Promise<void> {
  try {
    bundle.create(content);
  } catch (error) {
    if (!hasCode(error, 'EEXIST')) throw storageError('make the bundle', bundle.path, error);
    // Nobody knows of a task here: it is what a failed creation could not remove.
    await discard(bundle);
    bundle.create(content);
  }
}

/** The error that the client is given. */
function explained(task: Task, progress: Progress, error: unknown): RpcError {
  const { code, message } = toRpcError(error);
  if (progress.restoring) {
    return new RpcError(code, `failed to unpack the checkpoint: ${message}`, { cause: error });
  }
  if (progress.shim === undefined && progress.started === undefined) {
    return new RpcError(code, progress.bundle ? `failed to start shim: ${message}` : message, {
      cause: error,
    });
  }
  if (code !== Code.Unavailable) {
    return new RpcError(code, `failed to create shim task: ${message}`, { cause: error });
  }
  const said = task.bundle.logTail(LOG_TAIL_BYTES);
  const want = starved(said);
  if (want !== undefined)
    return resourceExhausted(`failed to create shim task: the shim ended: ${want}`, error);
  return internal(`failed to create shim task: the shim ended: ${said || message}`, error);
}

/** Never rejects: what cannot be undone is undone at the next attempt or the next start. */
async function undo(task: Task, progress: Progress, error: unknown, yard: Yard): Promise<void> {
  const { log } = task;
  const failed = (failure: unknown) => log.error({ err: failure }, 'a failed creation could not be undone');
  const attempt = () => takeBack(task, progress, error, yard);
  try {
    await attempt();
  } catch (failure) {
    if (isForWant(failure)) {
      const undoing = whenPossible('the undoing of a failed creation', attempt, { log });
      yard.goesOn(undoing.catch(failed).finally(() => task.leave()));
      return;
    }
    failed(failure);
  }
  task.leave();
}

async function takeBack(task: Task, progress: Progress, error: unknown, yard: Yard): Promise<void> {
  const { bundle, launcher, log } = task;
  const { shim, started } = progress;
  if (shim !== undefined && !shim.lost && isAnswer(error)) {
    await stopShim(task, shim);
  } else if (started !== undefined || (progress.bundle && bundle.readForeignAddress() !== undefined)) {
    shim?.close();
    await cleanUpAfterShim(bundle, launcher, started?.bootstrap, log, started?.pid);
  }
  await yard.discard(bundle);
}

/** The shim itself has said no, so that there is no container; otherwise there may be one. */
function isAnswer(error: unknown): boolean {
  return (
    error instanceof RpcError &&
    ![Code.Unavailable, Code.Cancelled, Code.DeadlineExceeded, Code.Internal].some((code) =>
      isCode(error, code),
    )
  );
}

/** What a second creation of the same task is told. */
export function taskExists(id: string): RpcError {
  return alreadyExists(`task ${id}: already exists`);
}
