/** What a container may use, from the CRI's terms into those of the OCI runtime specification. */
import { existsSync, readFileSync } from 'node:fs';
import type { Resources } from '../../../oci/spec.ts';
import { LinuxContainerResources } from '../../../proto/gen/runtime/v1/api.ts';

/** What of it is a matter of cgroups. Nothing is said of what is 0 or empty, as the CRI has it. */
export function specResources(resources: LinuxContainerResources): Resources {
  const { cpuPeriod, cpuQuota, cpuShares, cpusetCpus, cpusetMems, hugepageLimits, unified } = resources;
  const limit = numberOf(resources.memoryLimitInBytes);
  // Equal, so that a container with a limit does not swap unless it is said to.
  const swap = hasSwapLimits() ? (numberOf(resources.memorySwapLimitInBytes) ?? limit) : undefined;
  const cpu = {
    period: numberOf(cpuPeriod),
    quota: numberOf(cpuQuota),
    shares: numberOf(cpuShares),
    cpus: cpusetCpus || undefined,
    mems: cpusetMems || undefined,
  };
  return {
    cpu: isEmpty(cpu) ? undefined : cpu,
    memory: limit === undefined && swap === undefined ? undefined : { limit, swap },
    hugepageLimits:
      hugepageLimits.length > 0 && hasController('hugetlb')
        ? hugepageLimits.map(({ pageSize, limit }) => ({ pageSize, limit: Number(limit) }))
        : undefined,
    unified: Object.keys(unified).length > 0 ? { ...unified } : undefined,
  };
}

/** Resources with changes over them: what a change does not name stays. */
export function withChanges(
  resources: LinuxContainerResources | undefined,
  changes: LinuxContainerResources,
): LinuxContainerResources {
  const before = resources ?? LinuxContainerResources.fromPartial({});
  const named = Object.entries(changes).filter(
    ([, value]) => value !== 0n && value !== '' && !(Array.isArray(value) && value.length === 0),
  );
  return { ...before, ...Object.fromEntries(named), unified: { ...before.unified, ...changes.unified } };
}

/** 0 says nothing. */
function numberOf(value: bigint): number | undefined {
  return value === 0n ? undefined : Number(value);
}

function isEmpty(object: object): boolean {
  return Object.values(object).every((value) => value === undefined);
}

function hasSwapLimits(): boolean {
  return (
    existsSync('/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes') ||
    existsSync('/sys/fs/cgroup/cgroup.controllers')
  );
}

/** With version 1 or 2. One that is missing is no reason to refuse a container, by containerd's default. */
function hasController(name: string): boolean {
  if (existsSync(`/sys/fs/cgroup/${name}`)) return true;
  const unified = '/sys/fs/cgroup/cgroup.controllers';
  return existsSync(unified) && readFileSync(unified, 'latin1').trim().split(' ').includes(name);
}
