/** Where the cgroups of pods and containers are, by either driver. */
import { basename, join } from 'node:path';
import type { PodSandboxConfig } from '../../proto/gen/runtime/v1/api.ts';
import type { CriSettings } from './settings.ts';

/**
 * As specifications have it: a path below the pod's cgroup, or `SLICE:PREFIX:NAME` for systemd, which makes the scope
 * `PREFIX-NAME.scope` in that slice.
 *
 * @param id of a container, or of the pod for its own process
 */
export function cgroupsPath(
  { systemd_cgroup: isSystemd }: Pick<CriSettings, 'systemd_cgroup'>,
  { linux }: PodSandboxConfig,
  id: string,
): string {
  const parent = linux?.cgroupParent ?? '';
  if (isSystemd) return [parent === '' ? 'system.slice' : basename(parent), 'cri-containerd', id].join(':');
  return parent === '' ? join('/', 'k8s.io', id) : join('/', parent, id);
}
