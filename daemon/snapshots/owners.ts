/** Labels by which clients have the owners of a snapshot's files shifted into a user namespace: containerd's. */
import { shiftOwners } from '../../native/native.ts';
import { invalidArgument, unimplemented } from '../../ttrpc/errors.ts';
import { Kind, type Mount } from './snapshotter.ts';

const UID = 'containerd.io/snapshot/uidmapping';
const GID = 'containerd.io/snapshot/gidmapping';

/** What is added to the numbers of owners and groups. */
export interface Shift {
  readonly uid: number;
  readonly gid: number;
}

/**
 * Undefined when the labels do not ask for it.
 *
 * @throws RpcError InvalidArgument for a mapping that is none; Unimplemented for several or partial ones, and for views, which
 *         cannot be written to
 */
export function shiftFor(kind: Kind, labels: { readonly [key: string]: string }): Shift | undefined {
  const uid = hostId(labels, UID);
  const gid = hostId(labels, GID);
  if (uid === undefined && gid === undefined) return undefined;
  if (kind !== Kind.ACTIVE) throw unimplemented(`the label ${UID} is for snapshots that can be written to`);
  return { uid: uid ?? 0, gid: gid ?? 0 };
}

/** Gives the files of a snapshot, which has these mounts, their new owners. */
export async function shiftFiles(
  mounts: readonly Mount[],
  by: Shift,
  signal: AbortSignal | undefined,
): Promise<void> {
  const [mount] = mounts;
  if (mount !== undefined) await shiftOwners(mount, by, signal);
}

/** `container:host:length` */
function hostId(labels: { readonly [key: string]: string }, key: string): number | undefined {
  const text = labels[key];
  if (text === undefined) return undefined;
  const [, container, host] = /^(\d{1,10}):(\d{1,10}):(\d{1,10})$/.exec(text) ?? [];
  if (host === undefined && text.includes(','))
    throw unimplemented(`label ${key}: several mappings are not supported: ${text}`);
  if (host === undefined || Number(host) > 0xfffffffe)
    throw invalidArgument(`label ${key}: not container:host:length: ${text}: invalid argument`);
  if (Number(container) !== 0) throw unimplemented(`label ${key}: the mapping must begin at 0, not ${text}`);
  return Number(host);
}
