/** What the runtime is told of a pod's first process, which holds the namespaces. */
import { readFileSync } from 'node:fs';
import { DEFAULT_CAPABILITIES } from '../../oci/capability.ts';
import { MASKED_PATHS, OCI_VERSION, READONLY_PATHS, specMount } from '../../oci/default-spec.ts';
import { DEFAULT_PATH } from '../../oci/environment.ts';
import type { RunConfig } from '../../oci/image-config.ts';
import type { LinuxNamespace, NamespaceType, Spec } from '../../oci/spec.ts';
import { NamespaceMode, type PodSandboxConfig } from '../../proto/gen/runtime/v1/api.ts';
import { invalidArgument } from '../../ttrpc/errors.ts';
import { cgroupsPath } from './cgroup.ts';
import { Annotation, namespacesOf, userNamespaceOf } from './pod.ts';
import { hostnameOf, podFiles } from './pod-files.ts';
import type { CriSettings } from './settings.ts';
import { profileOf, seccompOf } from './spec/profiles.ts';
import { mappingsOf } from './user-namespace.ts';

export interface SandboxSpecOptions {
  readonly id: string;
  readonly config: PodSandboxConfig;
  readonly settings: CriSettings;
  readonly image: RunConfig;
  /** Of the pod's files. */
  readonly directory: string;
  /** The file of the network namespace to join; empty for the node's, undefined for a new one. */
  readonly netns: string | undefined;
  /** Annotations that the handler lets through to the runtime. */
  readonly passed: { readonly [key: string]: string };
}

/** It does nothing, and must live as long as anything does on the node. */
const OOM_SCORE = -998;
const CPU_SHARES = 2;
/** Of the kernel's: all groups. */
const ALL_GROUPS = '0 2147483647';

/** @throws RpcError InvalidArgument for what cannot be */
export function sandboxSpec(options: SandboxSpecOptions): Spec {
  const { id, config, settings, image, directory, netns } = options;
  const args = [...image.entrypoint, ...image.cmd];
  if (args.length === 0)
    throw invalidArgument('the sandbox image says of no program to run: invalid argument');
  const namespaces = namespacesOf(config);
  const mappings = mappingsOf(config);
  const { securityContext } = config.linux ?? {};
  if (securityContext?.runAsGroup !== undefined && securityContext.runAsUser === undefined)
    throw invalidArgument('runAsGroup is given without runAsUser: invalid argument');
  const user = {
    uid: Number(securityContext?.runAsUser?.value ?? 0n),
    gid: Number(securityContext?.runAsGroup?.value ?? 0n),
    additionalGids: (securityContext?.supplementalGroups ?? []).map(Number),
  };
  const made: NamespaceType[] = ['mount'];
  if (namespaces.network !== NamespaceMode.NODE) made.push('uts');
  if (namespaces.ipc !== NamespaceMode.NODE) made.push('ipc');
  if (namespaces.pid !== NamespaceMode.NODE) made.push('pid');
  if (mappings !== undefined) made.push('user');
  const list: LinuxNamespace[] = made.map((type) => ({ type }));
  if (netns !== '') list.push(netns === undefined ? { type: 'network' } : { type: 'network', path: netns });
  const capabilities = [...DEFAULT_CAPABILITIES];
  const profile = profileOf(securityContext?.seccomp, securityContext?.seccompProfilePath ?? '', 'seccomp');
  const seccomp = securityContext?.privileged === true ? undefined : seccompOf(profile, capabilities);
  return {
    ociVersion: OCI_VERSION,
    root: { path: 'rootfs', readonly: true },
    ...(namespaces.network !== NamespaceMode.NODE && { hostname: hostnameOf(config) }),
    process: {
      user,
      args,
      env: image.env.length > 0 ? [...image.env] : [DEFAULT_PATH],
      cwd: image.workingDir || '/',
      capabilities: { bounding: capabilities, effective: capabilities, permitted: capabilities },
      noNewPrivileges: true,
      oomScoreAdj: Math.max(OOM_SCORE, leastOomScore()),
    },
    mounts: [
      specMount('/proc', 'proc', 'proc', 'nosuid,noexec,nodev'),
      specMount('/dev', 'tmpfs', 'tmpfs', 'nosuid,strictatime,mode=755,size=65536k'),
      // Of a network that is not its user namespace's none can be mounted.
      ...(mappings !== undefined && namespaces.network === NamespaceMode.NODE
        ? [specMount('/sys', 'bind', '/sys', 'rbind,nosuid,noexec,nodev,ro')]
        : [specMount('/sys', 'sysfs', 'sysfs', 'nosuid,noexec,nodev,ro')]),
      specMount('/dev/shm', 'bind', podFiles(directory, config).shm, 'rbind,ro,nosuid,nodev,noexec'),
    ],
    annotations: { ...options.passed, ...annotationsOf(id, config) },
    linux: {
      namespaces: list,
      ...(mappings !== undefined && { uidMappings: mappings.uids, gidMappings: mappings.gids }),
      cgroupsPath: cgroupsPath(settings, config, id),
      resources: { devices: [{ allow: false, access: 'rwm' }], cpu: { shares: CPU_SHARES } },
      sysctl: sysctlsOf(config, settings),
      ...(seccomp !== undefined && { seccomp }),
      maskedPaths: [...MASKED_PATHS],
      readonlyPaths: [...READONLY_PATHS],
    },
  };
}

/** What the pod asks for, and what pods may do without asking (as containerd 2 has it). */
function sysctlsOf(config: PodSandboxConfig, settings: CriSettings): Record<string, string> {
  const asked = config.linux?.sysctls ?? {};
  const { network } = namespacesOf(config);
  if (network === NamespaceMode.NODE) return { ...asked };
  const isMapped = userNamespaceOf(config) !== undefined;
  return {
    ...(settings.enable_unprivileged_ports && { 'net.ipv4.ip_unprivileged_port_start': '0' }),
    // Groups that are not mapped cannot be named in there.
    ...(settings.enable_unprivileged_icmp && !isMapped && { 'net.ipv4.ping_group_range': ALL_GROUPS }),
    ...asked,
  };
}

function annotationsOf(id: string, config: PodSandboxConfig): { [key: string]: string } {
  const { name = '', namespace = '', uid = '' } = config.metadata ?? {};
  return {
    [Annotation.ContainerType]: 'sandbox',
    [Annotation.SandboxId]: id,
    [Annotation.SandboxName]: name,
    [Annotation.SandboxNamespace]: namespace,
    [Annotation.SandboxUid]: uid,
    [Annotation.SandboxLogDirectory]: config.logDirectory,
  };
}

let least: number | undefined;

/**
 * The lowest score that this daemon can give to others: its own, unless it has CAP_SYS_RESOURCE, which a daemon in a container often
 * lacks (proc_pid_oom_score_adj(5)).
 */
export function leastOomScore(): number {
  if (least !== undefined) return least;
  const CAP_SYS_RESOURCE = 24n;
  const mask = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0';
  const may = ((BigInt(`0x${mask}`) >> CAP_SYS_RESOURCE) & 1n) === 1n;
  least = may ? -1000 : Number(readFileSync('/proc/self/oom_score_adj', 'utf8'));
  return least;
}
