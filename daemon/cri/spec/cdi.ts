/** Devices of vendors in a container, by their names in vendors' files (Container Device Interface). */
import { allow, devicesAt } from '../../../oci/device.ts';
import { withEnvironment } from '../../../oci/environment.ts';
import type { Device, DeviceRule, Spec } from '../../../oci/spec.ts';
import { invalidArgument, messageOf } from '../../../ttrpc/errors.ts';
import { placeOf, sortedByDepth } from './mounts.ts';
import { type Edits, type VendorDirectory, type VendorFile, readVendorDirectory } from './vendor-file.ts';

/** Annotations by which clients before there was a field for it ask for devices: names with commas between. */
const ANNOTATION = 'cdi.k8s.io/';

/** How a file says that a device is there and may not be used. */
const NO_ACCESS = 'none';

/** The edits of a device that was asked for, and those that its file has for all of its devices. */
export interface VendorDevice {
  readonly name: string;
  readonly file: VendorFile;
  readonly edits: Edits;
}

/** The devices that a container asks for, each once. */
export function askedDevices(
  names: readonly string[],
  annotations: { readonly [key: string]: string },
): string[] {
  const annotated = Object.entries(annotations)
    .filter(([key]) => key.startsWith(ANNOTATION))
    .flatMap(([, value]) => value.split(','))
    .map((name) => name.trim());
  return [...new Set([...names, ...annotated])].filter((name) => name !== '');
}

/**
 * Looks devices up in the files of vendors.
 *
 * @param names `VENDOR/CLASS=NAME`
 * @param directories later ones go before earlier ones
 * @throws RpcError InvalidArgument for a device that no file knows, or two in the same directory
 */
export async function findDevices(
  names: readonly string[],
  directories: readonly string[],
): Promise<VendorDevice[]> {
  if (names.length === 0) return [];
  const read = await Promise.all(directories.map(readVendorDirectory));
  const unknown: string[] = [];
  const found: VendorDevice[] = [];
  for (const name of names) {
    const device = deviceIn(name, read);
    if (device === undefined) unknown.push(name);
    else found.push(device);
  }
  if (unknown.length === 0) return found;
  const failures = read.flatMap(({ failures }) => failures).map((failure) => `; ${failure}`);
  throw invalidArgument(
    `CDI device injection failed: unresolvable CDI devices ${unknown.join(', ')}${failures.join('')}`,
  );
}

function deviceIn(name: string, directories: readonly VendorDirectory[]): VendorDevice | undefined {
  const [kind, own] = partsOf(name);
  for (const { files } of directories.toReversed()) {
    const found = files
      .filter((file) => file.kind === kind)
      .flatMap((file) =>
        file.devices
          .filter((device) => device.name === own)
          .map(({ containerEdits }) => ({ name, file, edits: containerEdits })),
      );
    if (found.length > 1)
      throw invalidArgument(
        `CDI device injection failed: CDI device ${name} is in several files of one directory`,
      );
    if (found[0] !== undefined) return found[0];
  }
  return undefined;
}

function partsOf(name: string): [kind: string, device: string] {
  const [, kind, device] = /^([\w.-]+\/[\w.-]+)=([\w.:-]+)$/.exec(name) ?? [];
  if (kind === undefined || device === undefined)
    throw invalidArgument(
      `${JSON.stringify(name)} is no name of a CDI device: VENDOR/CLASS=NAME is expected`,
    );
  return [kind, device];
}

/** Puts devices into a specification: first what a file has for all of its devices, once. @throws RpcError InvalidArgument */
export function injectDevices(spec: Spec, devices: readonly VendorDevice[]): void {
  const general = new Set<VendorFile>();
  for (const { name, file, edits } of devices) {
    try {
      if (!general.has(file)) apply(spec, file.containerEdits);
      general.add(file);
      apply(spec, edits);
    } catch (error) {
      throw invalidArgument(`CDI device injection failed: ${name}: ${messageOf(error)}`, error);
    }
  }
}

function apply(spec: Spec, { env, deviceNodes, mounts, hooks, additionalGids, intelRdt }: Edits): void {
  const { process, linux } = spec;
  if (process !== undefined) {
    process.env = withEnvironment(process.env ?? [], env);
    const groups = [...(process.user.additionalGids ?? []), ...additionalGids.filter((gid) => gid !== 0)];
    process.user.additionalGids = [...new Set(groups)];
  }
  if (linux !== undefined) {
    for (const node of deviceNodes) addDevice(spec, node);
    if (intelRdt !== undefined) linux.intelRdt = { ...intelRdt, schemata: intelRdt.schemata?.slice() };
  }
  for (const { hostPath, containerPath, type = 'bind', options = ['rbind', 'ro'] } of mounts) {
    const others = (spec.mounts ?? []).filter(
      ({ destination }) => placeOf(destination) !== placeOf(containerPath),
    );
    const mount = { destination: containerPath, source: hostPath, type, options: [...options] };
    spec.mounts = sortedByDepth([...others, mount], ({ destination }) => destination);
  }
  for (const { hookName, path, args, env: ofHook, timeout } of hooks) {
    const hook = { path, args: args?.slice(), env: ofHook?.slice(), timeout };
    spec.hooks = { ...spec.hooks, [hookName]: [...(spec.hooks?.[hookName] ?? []), hook] };
  }
}

/** It belongs to who the container runs as, unless its file says otherwise. */
function addDevice({ process, linux = {} }: Spec, node: Edits['deviceNodes'][number]): void {
  const { uid = 0, gid = 0 } = process?.user ?? {};
  const owner = { ...(uid > 0 && { uid }), ...(gid > 0 && { gid }) };
  const own = Object.entries({ fileMode: node.fileMode, uid: node.uid, gid: node.gid });
  const device: Device = {
    ...kernelDevice(node),
    path: node.path,
    ...owner,
    ...Object.fromEntries(own.filter(([, value]) => value !== undefined)),
  };
  const others = (linux.devices ?? []).filter(({ path }) => path !== node.path);
  linux.devices = [...others, device];
  if (device.type === 'p' || node.permissions === NO_ACCESS) return;
  const rule: DeviceRule = { ...allow(device), access: node.permissions || 'rwm' };
  linux.resources = { ...linux.resources, devices: [...(linux.resources?.devices ?? []), rule] };
}

/** By the numbers of the file, or those of the node on this host. */
function kernelDevice({ path, hostPath = path, type, major, minor }: Edits['deviceNodes'][number]): Device {
  const isBlock = type === 'b';
  if (type === 'p') return { type, path, major: 0, minor: 0 };
  if (type !== undefined && major !== undefined && minor !== undefined)
    return { type: isBlock ? 'b' : 'c', path, major, minor };
  const [device, ...more] = devicesAt(hostPath);
  if (device === undefined || more.length > 0) throw invalidArgument(`not a device: ${hostPath}`);
  if (type !== undefined && isBlock !== (device.type === 'b'))
    throw invalidArgument(`${hostPath} is no device of the type ${type}`);
  return device;
}
