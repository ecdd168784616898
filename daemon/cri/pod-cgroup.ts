/**
 * What a pod as a whole uses, by the cgroup that kubelet makes for it and puts all of its containers in: what has ended there counts as
 * well, and limits of the pod are known there alone.
 */
import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { readMetricsV1 } from '../../cgroup/v1.ts';
import { readMetricsV2 } from '../../cgroup/v2.ts';
import { type CgroupUsage, fromV1, fromV2 } from './usage.ts';

const ROOT = '/sys/fs/cgroup';
/** Of version 1, those whose figures a pod is told of by. */
const CONTROLLERS = ['cpu', 'cpuacct', 'memory', 'pids'];

/**
 * @param parent as the CRI has it: the path of a cgroup, or for systemd the name of a slice
 * @param root where cgroups are mounted
 * @returns undefined where the pod has no cgroup of its own
 */
export function podUsage(parent: string, isSystemd: boolean, root = ROOT): CgroupUsage | undefined {
  if (parent === '' || parent === '/') return undefined;
  const path = isSystemd ? sliceFolder(basename(parent)) : parent;
  if (existsSync(join(root, 'cgroup.controllers'))) return ofUnified(join(root, path));
  return ofLegacy((controller) => join(root, controller, path));
}

/** A slice is below those whose names it begins with, up to each hyphen (systemd.slice(5)). */
export function sliceFolder(slice: string): string {
  const words = slice.replace(/\.slice$/, '').split('-');
  const above = words.map((_, index) => `${words.slice(0, index + 1).join('-')}.slice`);
  return join('/', ...above);
}

function ofUnified(folder: string): CgroupUsage | undefined {
  const metrics = readMetricsV2(folder);
  return metrics && fromV2(metrics);
}

function ofLegacy(folderOf: (controller: string) => string): CgroupUsage | undefined {
  if (!existsSync(folderOf('memory')) && !existsSync(folderOf('cpuacct'))) return undefined;
  const metrics = readMetricsV1(new Map(CONTROLLERS.map((name) => [name, folderOf(name)])));
  return metrics && fromV1(metrics);
}
