/** Who a container runs as. */
import type { RootDirectory } from '../../../oci/root-directory.ts';
import type { User } from '../../../oci/spec.ts';
import { imageUser } from '../../../oci/user.ts';
import {
  type LinuxContainerSecurityContext,
  SupplementalGroupsPolicy,
} from '../../../proto/gen/runtime/v1/api.ts';
import { invalidArgument } from '../../../ttrpc/errors.ts';

const LARGEST_ID = 2n ** 31n - 1n;

/**
 * The user that is asked for, or else the image's, looked up in the image's own files.
 *
 * @param fromImage as the image's configuration names it; empty for root
 * @throws RpcError InvalidArgument for a group without a user or a number that is none; NotFound for names that are not there
 */
export function userOf(
  security: LinuxContainerSecurityContext | undefined,
  fromImage: string,
  root: RootDirectory,
): User {
  const supplemental = (security?.supplementalGroups ?? []).map((id) => idOf(id));
  const asked = askedUser(security);
  const { uid, gid, additionalGids = [] } = imageUser(asked ?? fromImage, root);
  // What the image's files say of further groups is not taken over when only those are wanted that are named.
  const isStrict = security?.supplementalGroupsPolicy === SupplementalGroupsPolicy.Strict;
  const groups = new Set([gid, ...(isStrict ? [] : additionalGids), ...supplemental]);
  return { uid, gid, additionalGids: [...groups] };
}

function askedUser(security: LinuxContainerSecurityContext | undefined): string | undefined {
  const { runAsUser, runAsGroup, runAsUsername = '' } = security ?? {};
  const user = runAsUsername || (runAsUser === undefined ? undefined : String(idOf(runAsUser.value)));
  if (runAsGroup === undefined) return user;
  const group = idOf(runAsGroup.value);
  if (user === undefined)
    throw invalidArgument(
      `user group ${JSON.stringify(String(group))} is specified without user: invalid argument`,
    );
  return `${user}:${group}`;
}

function idOf(id: bigint): number {
  if (id < 0n || id > LARGEST_ID)
    throw invalidArgument(`${id} is no id of a user or a group: invalid argument`);
  return Number(id);
}
