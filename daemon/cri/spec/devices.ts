/** Which devices a container has. */
import { realpathSync } from 'node:fs';
import { isAbsolute } from 'node:path';
import {
  ALLOW_ALL,
  DEFAULT_DEVICE_RULES,
  DENY_ALL,
  allow,
  devicesAt,
  hostDevices,
} from '../../../oci/device.ts';
import type { Device, DeviceRule } from '../../../oci/spec.ts';
import type { Device as AskedDevice } from '../../../proto/gen/runtime/v1/api.ts';
import { invalidArgument, messageOf } from '../../../ttrpc/errors.ts';

export interface SpecDevices {
  readonly devices: Device[];
  readonly rules: DeviceRule[];
}

/** @throws RpcError InvalidArgument for what is no device */
export function devicesFor(
  asked: readonly AskedDevice[],
  { privileged, hostDevices: withHost }: { readonly privileged: boolean; readonly hostDevices: boolean },
): SpecDevices {
  const added = asked.map(askedDevices);
  const everything = privileged && withHost;
  return {
    devices: [...(everything ? hostDevices() : []), ...added.flatMap(({ devices }) => devices)],
    rules: everything
      ? [ALLOW_ALL]
      : [DENY_ALL, ...DEFAULT_DEVICE_RULES, ...added.flatMap(({ rules }) => rules)],
  };
}

function askedDevices({ hostPath, containerPath, permissions }: AskedDevice): SpecDevices {
  if (!/^[rwm]*$/.test(permissions))
    throw invalidArgument(`permissions ${JSON.stringify(permissions)} of a device are not of r, w and m`);
  let path: string;
  try {
    path = realpathSync(hostPath);
  } catch (error) {
    throw invalidArgument(`device ${JSON.stringify(hostPath)}: ${messageOf(error)}`, error);
  }
  const inside = containerPath === '' ? hostPath : containerPath;
  if (!isAbsolute(inside))
    throw invalidArgument(`the path of a device ${JSON.stringify(inside)} is not absolute`);
  const devices = devicesAt(path).map((device) => ({
    ...device,
    path: inside + device.path.slice(path.length),
  }));
  const rules = devices.map((device) => ({ ...allow(device), access: permissions || 'rwm' }));
  return { devices, rules };
}
