/** What the flags of `run` and `containers create` say of a container's OCI specification. */
import { readFileSync } from 'node:fs';
import type { oci, SpecOptions } from '../client/client.ts';
import type { ContainerFlags } from './container-flags.ts';
import { Failure } from './failure.ts';
import { split } from './labels.ts';

/** What the flags say of the OCI specification; a directory's and an image's are told apart by the caller. */
export function specOptions(
  command: readonly string[],
  flags: ContainerFlags,
  labels: Record<string, string>,
): Omit<SpecOptions, 'rootfs'> {
  const { seccomp = false, seccompProfile } = flags;
  if (seccompProfile !== undefined && !seccomp) throw new Failure('--seccomp-profile needs --seccomp');
  const fileLines = flags.envFile === undefined ? [] : readText(flags.envFile, '--env-file').split(/\r?\n/);
  return {
    args: command.length === 0 ? undefined : command,
    env: [...fileLines, ...(flags.env ?? [])],
    cwd: flags.cwd,
    user: flags.user,
    hostname: flags.hostname,
    terminal: flags.tty,
    readonly: flags.readOnly,
    mounts: flags.mount?.map(parseMount),
    annotations: annotationsOf(flags, labels),
    cgroupsPath: flags.cgroup,
    memoryLimit: flags.memoryLimit,
    cpuShares: flags.cpuShares,
    cpu: cpuOf(flags),
    addCapabilities: flags.capAdd?.map(checkCapability),
    dropCapabilities: flags.capDrop?.map(checkCapability),
    noNewPrivileges: flags.allowNewPrivs === true ? false : undefined,
    privileged: flags.privileged,
    devices: flags.device,
    hostNetwork: flags.netHost,
    idMappings: idMappingsOf(flags),
    rootfsPropagation: flags.rootfsPropagation,
    seccomp: seccompOf(seccomp, seccompProfile),
    apparmorProfile: flags.apparmorProfile,
    rdtClass: flags.rdtClass,
  };
}

function seccompOf(on: boolean, file: string | undefined): SpecOptions['seccomp'] {
  if (!on) return undefined;
  return file === undefined ? 'default' : parseJson(file, '--seccomp-profile');
}

/** ctr shows labels to the runtime as annotations, too. */
function annotationsOf(
  flags: ContainerFlags,
  labels: Record<string, string>,
): Record<string, string> | undefined {
  const annotations = (flags.annotation ?? []).map((pair) => {
    if (!pair.includes('=')) throw new Failure(`--annotation: not key=value: ${pair}`);
    return split(pair, '');
  });
  const all = { ...Object.fromEntries(annotations), ...labels };
  return Object.keys(all).length === 0 ? undefined : all;
}

/** The period of CFS when only a number of processors is given: the kernel's default. */
const DEFAULT_PERIOD = 100_000;

function cpuOf({ cpus, cpuQuota: quota, cpuPeriod: period }: ContainerFlags): SpecOptions['cpu'] {
  if (quota !== undefined || period !== undefined) {
    if (cpus !== undefined) throw new Failure('give either --cpus or --cpu-quota and --cpu-period');
    return { quota: quota ?? -1, period };
  }
  return cpus === undefined
    ? undefined
    : { quota: Math.trunc(cpus * DEFAULT_PERIOD), period: DEFAULT_PERIOD };
}

function idMappingsOf({ uidmap, gidmap }: ContainerFlags): SpecOptions['idMappings'] {
  if (uidmap === undefined && gidmap === undefined) return undefined;
  if (uidmap === undefined || gidmap === undefined) throw new Failure('give both --uidmap and --gidmap');
  return { uid: [uidmap], gid: [gidmap] };
}

function checkCapability(name: string): string {
  if (!name.startsWith('CAP_'))
    throw new Failure(`capabilities are named with CAP_: ${name}`, `did you mean CAP_${name}?`);
  return name;
}

function parseMount(text: string): oci.SpecMount {
  const mount: { -readonly [K in keyof oci.SpecMount]: oci.SpecMount[K] } = { destination: '' };
  // Fields of CSV: one with a comma in it is quoted.
  for (const [, quoted, plain] of text.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g)) {
    const field = quoted?.replaceAll('""', '"') ?? plain ?? '';
    const [key, value] = split(field, '');
    if (!field.includes('=')) throw new Failure(`--mount: not key=value: ${field}`);
    if (key === 'type') mount.type = value;
    else if (key === 'source' || key === 'src') mount.source = value;
    else if (key === 'destination' || key === 'dst') mount.destination = value;
    else if (key === 'options') mount.options = value.split(':');
    else throw new Failure(`--mount: unknown key ${key}`, 'keys are type, src, dst and options');
  }
  if (mount.destination === '') throw new Failure(`--mount: no dst: ${text}`);
  return mount;
}

export function parseJson(file: string, flag: string): object {
  try {
    return JSON.parse(readText(file, flag)) as object;
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure(`${flag}: ${file} is not JSON: ${(error as Error).message}`);
  }
}

function readText(file: string, flag: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new Failure(`${flag}: cannot read ${file}: ${(error as NodeJS.ErrnoException).code}`);
  }
}
