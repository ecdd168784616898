/** Which capabilities a container's processes have. */
import { currentCapabilities, DEFAULT_CAPABILITIES, isCapability } from '../../../oci/capability.ts';
import type { Capabilities } from '../../../oci/spec.ts';
import type { LinuxContainerSecurityContext } from '../../../proto/gen/runtime/v1/api.ts';
import { invalidArgument } from '../../../ttrpc/errors.ts';

const ALL = 'ALL';

/**
 * The default ones, those that are added to them and without those that are dropped. `ALL` is done before single ones are: all
 * dropped and one added is one.
 *
 * @throws RpcError InvalidArgument for a name that is none
 */
export function capabilitiesFor(security: LinuxContainerSecurityContext | undefined): Capabilities {
  const {
    addCapabilities = [],
    dropCapabilities = [],
    addAmbientCapabilities = [],
  } = security?.capabilities ?? {};
  const added = addCapabilities.map(nameOf);
  const dropped = dropCapabilities.map(nameOf);
  const ambient = addAmbientCapabilities.map(nameOf);
  let base: readonly string[] = DEFAULT_CAPABILITIES;
  if (security?.privileged === true || added.includes(ALL) || ambient.includes(ALL))
    base = currentCapabilities();
  if (dropped.includes(ALL) && security?.privileged !== true) base = [];
  const granted = new Set([...base, ...added, ...ambient]);
  for (const name of [ALL, ...dropped]) granted.delete(name);
  const names = [...granted];
  const inherited = ambient.includes(ALL) ? names : ambient.filter((name) => granted.has(name));
  return {
    bounding: names,
    effective: [...names],
    permitted: [...names],
    ...(inherited.length > 0 && { inheritable: [...inherited], ambient: [...inherited] }),
  };
}

/** Kubernetes writes them without their prefix, in any case. */
function nameOf(name: string): string {
  const upper = name.toUpperCase();
  if (upper === ALL) return ALL;
  const full = upper.startsWith('CAP_') ? upper : `CAP_${upper}`;
  if (!isCapability(full))
    throw invalidArgument(`unknown capability ${JSON.stringify(name)}: invalid argument`);
  return full;
}
