/**
 * Devices of vendors, which files say how to put into a container (Container Device Interface, cncf-tags/container-device-interface,
 * SPEC.md). Files in JSON are read.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { extname, join } from 'node:path';
import { HOOK_NAMES, type HookName, type Spec } from '../../../oci/spec.ts';
import { allow, devicesAt } from '../../../oci/device.ts';
import { withEnvironment } from '../../../oci/environment.ts';
import { invalidArgument } from '../../../ttrpc/errors.ts';

interface DeviceNode {
  readonly path: string;
  readonly hostPath?: string;
  readonly permissions?: string;
  readonly fileMode?: number;
  readonly uid?: number;
  readonly gid?: number;
}

interface Edits {
  readonly env?: readonly string[];
  readonly deviceNodes?: readonly DeviceNode[];
  readonly mounts?: readonly {
    readonly hostPath: string;
    readonly containerPath: string;
    readonly type?: string;
    readonly options?: readonly string[];
  }[];
  readonly hooks?: readonly {
    readonly hookName: string;
    readonly path: string;
    readonly args?: readonly string[];
    readonly env?: readonly string[];
    readonly timeout?: number;
  }[];
  readonly additionalGids?: readonly number[];
}

interface VendorFile {
  readonly kind: string;
  readonly devices?: readonly { readonly name: string; readonly containerEdits?: Edits }[];
  readonly containerEdits?: Edits;
}

/** Annotations by which clients before there was a field for it ask for devices: names with commas between. */
const ANNOTATION = 'cdi.k8s.io/';

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
 * Puts devices into a specification.
 *
 * @param names `VENDOR/CLASS=NAME`
 * @param directories later ones go before earlier ones
 * @throws RpcError InvalidArgument for a device that no file knows
 */
export function injectDevices(spec: Spec, names: readonly string[], directories: readonly string[]): void {
  if (names.length === 0) return;
  const files = directories.flatMap(filesIn).map(readVendorFile);
  const general = new Set<VendorFile>();
  const unknown: string[] = [];
  for (const name of names) {
    const [kind, device] = partsOf(name);
    const file = files.findLast(
      (each) => each?.kind === kind && each.devices?.some((known) => known.name === device) === true,
    );
    if (file === undefined) {
      unknown.push(name);
      continue;
    }
    apply(spec, file.devices?.find((known) => known.name === device)?.containerEdits ?? {});
    general.add(file);
  }
  if (unknown.length > 0)
    throw invalidArgument(`CDI device injection failed: unresolvable CDI devices ${unknown.join(', ')}`);
  for (const { containerEdits } of general) apply(spec, containerEdits ?? {});
}

function partsOf(name: string): [kind: string, device: string] {
  const [, kind, device] = /^([\w.-]+\/[\w.-]+)=([\w.:-]+)$/.exec(name) ?? [];
  if (kind === undefined || device === undefined)
    throw invalidArgument(
      `${JSON.stringify(name)} is no name of a CDI device: VENDOR/CLASS=NAME is expected`,
    );
  return [kind, device];
}

function filesIn(directory: string): string[] {
  if (statSync(directory, { throwIfNoEntry: false })?.isDirectory() !== true) return [];
  return readdirSync(directory)
    .filter((name) => extname(name) === '.json')
    .sort()
    .map((name) => join(directory, name));
}

/** Undefined for one that cannot be read: other vendors' devices are there all the same. */
function readVendorFile(path: string): VendorFile | undefined {
  try {
    const file = JSON.parse(readFileSync(path, 'utf8')) as VendorFile | null;
    return typeof file?.kind === 'string' ? file : undefined;
  } catch {
    return undefined;
  }
}

function apply(
  spec: Spec,
  { env = [], deviceNodes = [], mounts = [], hooks = [], additionalGids = [] }: Edits,
): void {
  const { process, linux } = spec;
  if (process !== undefined) {
    process.env = withEnvironment(process.env ?? [], env);
    process.user.additionalGids = [...new Set([...(process.user.additionalGids ?? []), ...additionalGids])];
  }
  if (linux !== undefined) {
    const added = deviceNodes.map((node) => ({ node, device: deviceOf(node) }));
    linux.devices = [...(linux.devices ?? []), ...added.map(({ device }) => device)];
    const rules = added.map(({ node, device }) => ({ ...allow(device), access: node.permissions ?? 'rwm' }));
    linux.resources = { ...linux.resources, devices: [...(linux.resources?.devices ?? []), ...rules] };
  }
  const bound = mounts.map(({ hostPath, containerPath, type = 'bind', options = ['rbind', 'ro'] }) => ({
    destination: containerPath,
    source: hostPath,
    type,
    options: [...options],
  }));
  spec.mounts = [...(spec.mounts ?? []), ...bound];
  for (const { hookName, path, args, env: variables, timeout } of hooks) {
    if (!isHook(hookName))
      throw invalidArgument(`a CDI device has an unknown hook ${JSON.stringify(hookName)}`);
    const hook = { path, args: args && [...args], env: variables && [...variables], timeout };
    spec.hooks = { ...spec.hooks, [hookName]: [...(spec.hooks?.[hookName] ?? []), hook] };
  }
}

function deviceOf({ path, hostPath, fileMode, uid, gid }: DeviceNode) {
  const at = hostPath ?? path;
  const [device] = devicesAt(at);
  if (device === undefined) throw invalidArgument(`a CDI device is no device: ${at}`);
  const own = Object.entries({ fileMode, uid, gid }).filter(([, value]) => value !== undefined);
  return { ...device, path, ...Object.fromEntries(own) };
}

function isHook(name: string): name is HookName {
  return (HOOK_NAMES as readonly string[]).includes(name);
}
