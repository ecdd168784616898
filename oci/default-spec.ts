/** What containerd gives every container that is not asked for otherwise. */
import type { SpecMount } from './spec.ts';

/** The version of the specification that is written. */
export const OCI_VERSION = '1.0.2';

/** A mount as it stands in a specification; the options with commas. */
export const specMount = (destination: string, type: string, source: string, options: string): SpecMount => ({
  destination,
  type,
  source,
  options: options.split(','),
});

/** What every container finds mounted, in the order of mounting. */
export const DEFAULT_MOUNTS: readonly SpecMount[] = [
  specMount('/proc', 'proc', 'proc', 'nosuid,noexec,nodev'),
  specMount('/dev', 'tmpfs', 'tmpfs', 'nosuid,strictatime,mode=755,size=65536k'),
  specMount('/dev/pts', 'devpts', 'devpts', 'nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5'),
  specMount('/dev/shm', 'tmpfs', 'shm', 'nosuid,noexec,nodev,mode=1777,size=65536k'),
  specMount('/dev/mqueue', 'mqueue', 'mqueue', 'nosuid,noexec,nodev'),
  specMount('/sys', 'sysfs', 'sysfs', 'nosuid,noexec,nodev,ro'),
  specMount('/run', 'tmpfs', 'tmpfs', 'nosuid,strictatime,mode=755,size=65536k'),
];

/** What of the kernel a container does not see. */
export const MASKED_PATHS = [
  '/proc/acpi',
  '/proc/asound',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/proc/sched_debug',
  '/sys/firmware',
  '/proc/scsi',
];

/** What of the kernel a container sees and may not write. */
export const READONLY_PATHS = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'];
