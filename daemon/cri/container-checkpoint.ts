/** Checkpoints of containers, as an archive beside which kubelet keeps nothing. */
import {
  createWriteStream,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { rm } from 'node:fs/promises';
import { isAbsolute, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { type Pack, pack } from 'tar-stream';
import { CheckpointOptions, protobufPackage } from '../../proto/gen/containerd/runtime/runc.ts';
import { deadlineExceeded, invalidArgument } from '../../ttrpc/errors.ts';
import type { ContainerId } from '../identifiers.ts';
import type { Cri } from './cri.ts';
import type { PodContainer } from './pod.ts';
import { runningContainer } from './process.ts';
import { KUBERNETES } from './registry.ts';

const CHECKPOINTS = 'checkpoint-';

/** What a daemon before this one was in the middle of writing goes. */
export function dropCheckpoints({ state }: Pick<Cri, 'state'>): void {
  for (const name of readdirSync(state))
    if (name.startsWith(CHECKPOINTS)) rmSync(join(state, name), { recursive: true, force: true });
}

/**
 * Has the runtime write down a running container, which runs on, and packs what it wrote: `checkpoint/`, and beside it `config.dump` and
 * `spec.dump`, as others name them.
 *
 * @param location a file that is not there, or is replaced
 * @param timeout milliseconds; 0 for none
 * @throws RpcError FailedPrecondition for a container that does not run; Unimplemented where criu is missing or does not work
 */
export async function checkpointContainer(
  cri: Cri,
  containerId: string,
  location: string,
  timeout: number,
  signal: AbortSignal,
): Promise<void> {
  const container = runningContainer(cri, containerId);
  if (!isAbsolute(location))
    throw invalidArgument(`the location ${JSON.stringify(location)} is not absolute`);
  const task = cri.tasks.get(KUBERNETES, container.id as ContainerId);
  const late = timeout === 0 ? undefined : AbortSignal.timeout(timeout);
  const patience = late === undefined ? signal : AbortSignal.any([signal, late]);
  const work = mkdtempSync(join(cri.state, CHECKPOINTS));
  const unfinished = `${location}.unfinished`;
  try {
    const image = join(work, 'checkpoint');
    const options = { typeUrl: `${protobufPackage}.CheckpointOptions`, value: optionsFor(container) };
    await task.checkpoint({ path: image, options }, patience);
    const archive = pack();
    const written = pipeline(archive, createWriteStream(unfinished, { mode: 0o600 }), { signal: patience });
    fill(archive, cri, container, work);
    await written;
    renameSync(unfinished, location);
  } catch (error) {
    rmSync(unfinished, { force: true });
    if (late?.aborted === true)
      throw deadlineExceeded(`the checkpoint takes longer than ${timeout / 1000} s`, error);
    throw error;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

function optionsFor({ config }: PodContainer): Buffer {
  const options = CheckpointOptions.fromPartial({ openTcp: true, terminal: config?.tty, fileLocks: true });
  return Buffer.from(CheckpointOptions.encode(options).finish());
}

function fill(
  archive: Pack,
  { metadata }: Cri,
  { id, imageRef, createdAt, config }: PodContainer,
  work: string,
): void {
  const { spec } = metadata.containers.get(KUBERNETES, id as ContainerId);
  const about = {
    id,
    name: config?.metadata?.name,
    rootfsImageRef: imageRef,
    createdTime: new Date(Number(createdAt / 1_000_000n)),
  };
  archive.entry({ name: 'config.dump' }, JSON.stringify(about));
  archive.entry({ name: 'spec.dump' }, Buffer.from(spec?.value ?? '{}'));
  for (const name of readdirSync(work, { recursive: true, encoding: 'utf8' })) {
    const path = join(work, name);
    if (statSync(path).isFile()) archive.entry({ name, mode: 0o600 }, readFileSync(path));
  }
  archive.finalize();
}
