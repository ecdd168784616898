import { lstatSync, readdirSync, type Stats, statSync } from 'node:fs';
import { join } from 'node:path';
import { invalidArgument } from '../ttrpc/errors.ts';
import type { Device, DeviceRule } from './spec.ts';

const RWM = 'rwm';

const character = (major: number, minor?: number): DeviceRule => ({
  allow: true,
  type: 'c',
  major,
  minor,
  access: RWM,
});

/** Nothing but what is allowed after it. */
export const DENY_ALL: DeviceRule = { allow: false, access: RWM };

export const ALLOW_ALL: DeviceRule = { allow: true, access: RWM };

/** The devices that every program expects, by containerd's default. */
export const DEFAULT_DEVICE_RULES: readonly DeviceRule[] = [
  character(1, 3), // null
  character(1, 8), // random
  character(1, 7), // full
  character(5, 0), // tty
  character(1, 5), // zero
  character(1, 9), // urandom
  character(5, 1), // console
  character(136), // pts/*
  character(5, 2), // ptmx
];

export function allow({ type, major, minor }: Device): DeviceRule {
  return { allow: true, type: type === 'b' ? 'b' : 'c', major, minor, access: RWM };
}

/** Directories under /dev that hold no devices of the host, or those of others. */
const SKIPPED_DIRECTORIES = new Set(['pts', 'shm', 'fd', 'mqueue', '.lxc', '.lxd-mounts', '.udev']);

/** All devices of the host, but for its consoles and FIFOs. */
export function hostDevices(): Device[] {
  return devicesIn('/dev');
}

/**
 * The device at a path, or all those below it when it is a directory.
 *
 * @throws RpcError InvalidArgument when it is neither
 */
export function devicesAt(path: string): Device[] {
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats === undefined) throw invalidArgument(`no such device: ${path}`);
  if (stats.isDirectory()) return devicesIn(path);
  const device = deviceOf(path, lstatSync(path));
  if (device === undefined) throw invalidArgument(`not a device: ${path}`);
  return [device];
}

function devicesIn(directory: string): Device[] {
  return readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) return SKIPPED_DIRECTORIES.has(entry.name) ? [] : devicesIn(path);
    if (entry.name === 'console') return [];
    const stats = lstatSync(path, { throwIfNoEntry: false });
    const device = stats === undefined ? undefined : deviceOf(path, stats);
    return device === undefined ? [] : [device];
  });
}

function deviceOf(path: string, stats: Stats): Device | undefined {
  if (!stats.isBlockDevice() && !stats.isCharacterDevice()) return undefined;
  return {
    type: stats.isBlockDevice() ? 'b' : 'c',
    path,
    ...numbersOf(stats.rdev),
    fileMode: stats.mode & 0o7777,
    uid: stats.uid,
    gid: stats.gid,
  };
}

/** glibc's packing of dev_t (sys/sysmacros.h), for numbers that fit in 32 bits as Linux's do. */
function numbersOf(rdev: number): { major: number; minor: number } {
  return { major: (rdev >>> 8) & 0xfff, minor: (rdev & 0xff) | ((rdev >>> 12) & 0xfff00) };
}
