/** An image's files with the owners that a user namespace gives them. */
import { randomBytes } from 'node:crypto';
import { shiftOwners } from '../native/native.ts';
import type { Mount } from '../proto/gen/containerd/types/mount.ts';
import { Code, failedPrecondition, invalidArgument, isCode, messageOf } from '../ttrpc/errors.ts';
import type { CallOptions } from '../ttrpc/service.ts';
import type { IdMapping } from '../oci/spec.ts';
import type { Snapshots } from './snapshots.ts';

export interface IdMappings {
  readonly uid: readonly IdMapping[];
  readonly gid: readonly IdMapping[];
}

const UNDO_MS = 10_000;

/**
 * The committed snapshot that has the files of another with their owners shifted into the user namespace. It is made when it is not
 * there, under the name that containerd's clients give it, so that all containers of the image with these mappings share it.
 * Capabilities of files are lost, as by any change of owners.
 *
 * @returns its name
 * @throws RpcError InvalidArgument for mappings that do not begin at 0; FailedPrecondition when it cannot be mounted here
 */
export async function remappedSnapshot(
  snapshots: Snapshots,
  parent: string,
  mappings: IdMappings,
  call: CallOptions,
): Promise<string> {
  const [uid, gid] = [shiftOf(mappings.uid), shiftOf(mappings.gid)];
  const name = `${parent}-${uid}-${gid}`;
  if (await isThere(snapshots, name, call)) return name;
  // Of its own: another client may be about to make the same.
  const key = `${name}-remap-${randomBytes(4).toString('hex')}`;
  const mounts = await snapshots.prepare(key, parent, call);
  try {
    await shift(mounts, uid, gid, call.signal);
    await snapshots.commit(name, key, call);
  } catch (error) {
    await snapshots.remove(key, { timeout: UNDO_MS }).catch(() => {});
    if (!isCode(error, Code.AlreadyExists)) throw error;
  }
  return name;
}

async function isThere(snapshots: Snapshots, name: string, call: CallOptions): Promise<boolean> {
  try {
    await snapshots.stat(name, call);
    return true;
  } catch (error) {
    if (isCode(error, Code.NotFound)) return false;
    throw error;
  }
}

function shiftOf([first, ...others]: readonly IdMapping[]): number {
  if (first === undefined || others.length > 0 || first.containerID !== 0)
    throw invalidArgument('the files of an image are shifted as a whole: give one mapping, from 0');
  return first.hostID;
}

async function shift(
  mounts: readonly Mount[],
  uid: number,
  gid: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const [mount, ...others] = mounts;
  if (mount === undefined || others.length > 0)
    throw failedPrecondition(`a snapshot of ${mounts.length} mounts cannot be given other owners`);
  try {
    await shiftOwners(mount, { uid, gid }, signal);
  } catch (error) {
    signal?.throwIfAborted();
    throw failedPrecondition(`cannot change the owners in the snapshot: ${messageOf(error)}`, error);
  }
}
