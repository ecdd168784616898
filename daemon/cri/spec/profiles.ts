/** Security profiles: seccomp's filters and AppArmor's. */
import { existsSync, readFileSync } from 'node:fs';
import { isAbsolute } from 'node:path';
import { defaultSeccompProfile } from '../../../oci/seccomp.ts';
import { type SecurityProfile, SecurityProfile_ProfileType } from '../../../proto/gen/runtime/v1/api.ts';
import { failedPrecondition, invalidArgument, messageOf } from '../../../ttrpc/errors.ts';

/** What Kubernetes wrote before there were fields for it. */
const LOCALHOST_PREFIX = 'localhost/';
/** The AppArmor profile that containerd loads for containers without one of their own. */
const DEFAULT_APPARMOR = 'cri-containerd.apparmor.d';
const LOADED_PROFILES = '/sys/kernel/security/apparmor/profiles';

/**
 * A profile as clients of older releases name it.
 *
 * @returns undefined for none
 * @throws RpcError InvalidArgument for a name that means nothing
 */
export function profileOf(
  profile: SecurityProfile | undefined,
  legacy: string,
  what: string,
): SecurityProfile | undefined {
  if (profile !== undefined || legacy === '') return profile;
  const of = (profileType: SecurityProfile_ProfileType, localhostRef = '') => ({ profileType, localhostRef });
  if (legacy === 'runtime/default' || legacy === 'docker/default')
    return of(SecurityProfile_ProfileType.RuntimeDefault);
  if (legacy === 'unconfined') return of(SecurityProfile_ProfileType.Unconfined);
  if (!legacy.startsWith(LOCALHOST_PREFIX))
    throw invalidArgument(`invalid ${what} profile ${JSON.stringify(legacy)}: invalid argument`);
  return of(SecurityProfile_ProfileType.Localhost, legacy.slice(LOCALHOST_PREFIX.length));
}

/**
 * The filter that a container gets; none where none is asked for.
 *
 * @param capabilities of the container's bounding set
 * @throws RpcError InvalidArgument for a profile that cannot be read or is none
 */
export function seccompOf(
  profile: SecurityProfile | undefined,
  capabilities: readonly string[],
): object | undefined {
  switch (profile?.profileType) {
    case undefined:
    case SecurityProfile_ProfileType.Unconfined:
      return undefined;
    case SecurityProfile_ProfileType.RuntimeDefault:
      return defaultSeccompProfile(capabilities);
    case SecurityProfile_ProfileType.Localhost:
      return readSeccomp(profile.localhostRef);
    default:
      throw invalidArgument(
        `unknown type of seccomp profile: ${String(profile?.profileType)}: invalid argument`,
      );
  }
}

function readSeccomp(reference: string): object {
  // As runtimes used to be told it by kubelet.
  const path = reference.startsWith(LOCALHOST_PREFIX) ? reference.slice(LOCALHOST_PREFIX.length) : reference;
  if (!isAbsolute(path)) throw invalidArgument(`the path of a seccomp profile must be absolute: ${path}`);
  let profile: unknown;
  try {
    profile = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw invalidArgument(`cannot load seccomp profile ${JSON.stringify(path)}: ${messageOf(error)}`, error);
  }
  if (typeof profile !== 'object' || profile === null || !('defaultAction' in profile))
    throw invalidArgument(`cannot load seccomp profile ${JSON.stringify(path)}: it has no defaultAction`);
  return profile;
}

/**
 * The name of the AppArmor profile that a container gets; undefined for none.
 *
 * @throws RpcError FailedPrecondition for one that is asked for where there is no AppArmor, or is not loaded
 */
export function apparmorOf(profile: SecurityProfile | undefined, privileged: boolean): string | undefined {
  const type = profile?.profileType;
  if (type === SecurityProfile_ProfileType.Unconfined) return undefined;
  if (!hasAppArmor()) {
    if (profile !== undefined) throw failedPrecondition('apparmor is not supported');
    return undefined;
  }
  if (type === SecurityProfile_ProfileType.Localhost) {
    const name = profile!.localhostRef.replace(new RegExp(`^${LOCALHOST_PREFIX}`), '');
    if (!isLoaded(name)) throw failedPrecondition(`apparmor profile not found ${name}`);
    return name;
  }
  return !privileged && isLoaded(DEFAULT_APPARMOR) ? DEFAULT_APPARMOR : undefined;
}

function hasAppArmor(): boolean {
  const path = '/sys/module/apparmor/parameters/enabled';
  return existsSync(path) && readFileSync(path, 'latin1').startsWith('Y') && existsSync(LOADED_PROFILES);
}

function isLoaded(name: string): boolean {
  return readFileSync(LOADED_PROFILES, 'utf8')
    .split('\n')
    .some((line) => line.startsWith(`${name} (`));
}
