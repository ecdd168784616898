/** The networks of pods: a network namespace each, kept by a file, and attached by CNI plugins. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { type PodSandboxConfig, Protocol } from '../../proto/gen/runtime/v1/api.ts';
import { failedPrecondition, invalidArgument, messageOf } from '../../ttrpc/errors.ts';
import { Cni } from '../cni/cni.ts';
import { type Configuration, ConfigurationDirectory } from '../cni/directory.ts';
import type { NetworkList } from '../cni/network-list.ts';
import type { Attachment } from '../cni/plugin.ts';
import type { Result } from '../cni/result.ts';
import type { Logger } from '../log.ts';
import { isNamespace, makeNamespace, removeNamespace } from '../network/netns.ts';
import { milliseconds } from '../schema.ts';
import { bandwidthOf } from './bandwidth.ts';
import type { CriSettings } from './settings.ts';

/** Every pod has the interface that a host talks to itself by. */
const LOOPBACK: NetworkList = {
  cniVersion: '0.3.1',
  name: 'cni-loopback',
  disableCheck: true,
  plugins: [{ type: 'loopback' }],
};

export interface PodNetworksOptions {
  readonly settings: CriSettings['cni'];
  /** Where attachments are kept: durable. */
  readonly root: string;
  readonly state: string;
  readonly log: Logger;
}

/** What a pod is attached with. */
export interface Attaching {
  readonly id: string;
  readonly netns: string;
  readonly config: PodSandboxConfig;
  /** In which the pod is; some plugins sort traffic by it. */
  readonly cgroupParent: string;
}

export class PodNetworks {
  readonly #options: PodNetworksOptions;
  #configurations: ConfigurationDirectory | undefined;
  #cni: Promise<Cni> | undefined;

  constructor(options: PodNetworksOptions) {
    this.#options = options;
  }

  /** The file of a pod's network namespace. */
  path(id: string): string {
    return join(this.#options.state, 'netns', id);
  }

  /** Makes the pod's network namespace, with nothing in it. */
  make(id: string): void {
    makeNamespace(this.path(id));
  }

  /** Lets go of the pod's network namespace; it goes with its last process. What is not there is fine. */
  remove(id: string): void {
    removeNamespace(this.path(id));
  }

  /**
   * Why pods cannot be attached.
   * @returns undefined when they can
   */
  problem(): string | undefined {
    const { conf_dir: directory } = this.#options.settings;
    let current: Configuration;
    try {
      ({ current } = this.#directory);
    } catch (error) {
      return `cni plugin not initialized: ${directory} cannot be watched: ${messageOf(error)}`;
    }
    const { lists, problems } = current;
    if (lists.length > 0) return undefined;
    return [`cni plugin not initialized: no network config found in ${directory}`, ...problems].join('; ');
  }

  /** The networks that a new pod is attached to. */
  get lists(): readonly NetworkList[] {
    const { max_conf_num: most } = this.#options.settings;
    const { lists } = this.#directory.current;
    return most === 0 ? lists : lists.slice(0, most);
  }

  /**
   * Attaches the pod to the networks that are configured now. When one fails, all are undone as far as they can be.
   *
   * @returns its addresses, the one that is told first
   * @throws RpcError FailedPrecondition without a configuration, and as plugins fail
   */
  async attach(pod: Attaching, signal: AbortSignal): Promise<string[]> {
    const problem = this.problem();
    if (problem !== undefined)
      throw failedPrecondition(`failed to setup network for sandbox "${pod.id}": ${problem}`);
    const cni = await this.#open();
    const capabilities = capabilitiesOf(pod);
    const attachment = (ifName: string): Attachment => ({
      containerId: pod.id,
      netns: pod.netns,
      ifName,
      args: argumentsOf(pod),
      capabilities,
    });
    const wanted = [
      ...this.lists.map((list, index) => ({ list, attachment: attachment(`eth${index}`) })),
      { list: LOOPBACK, attachment: attachment('lo') },
    ];
    const outcomes = await Promise.allSettled(
      wanted.map(({ list, attachment }) => cni.add(list, attachment, signal)),
    );
    const failed = outcomes.find((outcome) => outcome.status === 'rejected');
    if (failed !== undefined) {
      await this.detach(pod.id).catch((error: unknown) => {
        this.#options.log.warn({ pod: pod.id, error: messageOf(error) }, 'a pod cannot be detached yet');
      });
      throw failed.reason as Error;
    }
    const results = outcomes.map((outcome) => (outcome as PromiseFulfilledResult<Result>).value);
    const addresses = results.slice(0, -1).flatMap(addressesOf);
    if (addresses.length === 0)
      throw failedPrecondition(
        `failed to setup network for sandbox "${pod.id}": the plugins have given it no address`,
      );
    return addresses;
  }

  /**
   * Detaches the pod from everything that it is attached to or that somebody has begun to attach it to.
   *
   * @throws RpcError as plugins fail; it can be repeated
   */
  async detach(id: string): Promise<void> {
    const cni = await this.#open();
    const netns = this.path(id);
    await cni.detach(id, isNamespace(netns) ? netns : '');
  }

  close(): void {
    this.#configurations?.close();
    void this.#cni?.then((cni) => cni.close()).catch(() => undefined);
  }

  /** Read when the first one asks: most daemons have no pods. */
  get #directory(): ConfigurationDirectory {
    const { settings, log } = this.#options;
    this.#configurations ??= new ConfigurationDirectory(settings.conf_dir, log);
    return this.#configurations;
  }

  #open(): Promise<Cni> {
    const { settings, root, state, log } = this.#options;
    mkdirSync(root, { recursive: true, mode: 0o700 });
    this.#cni ??= Cni.open({
      plugins: settings.bin_dirs,
      cache: join(root, 'cni'),
      lock: join(state, 'cni.lock'),
      log,
      timeout: milliseconds(settings.timeout)!,
    }).catch((error: unknown) => {
      // The next one tries again: a plugin of the daemon before may have ended by then.
      this.#cni = undefined;
      throw error;
    });
    return this.#cni;
  }
}

/** Names and meaning: cri, and what plugins have made of them since (`CNI_ARGS` in CNI's CONVENTIONS.md). */
function argumentsOf({ id, config: { metadata } }: Attaching): (readonly [string, string])[] {
  const { name = '', namespace = '', uid = '' } = metadata ?? {};
  const all = [
    ['IgnoreUnknown', '1'],
    ['K8S_POD_NAMESPACE', namespace],
    ['K8S_POD_NAME', name],
    ['K8S_POD_INFRA_CONTAINER_ID', id],
    ['K8S_POD_UID', uid],
  ] as const;
  return all.filter(([, value]) => value !== '');
}

function capabilitiesOf({ config, cgroupParent }: Attaching): { [name: string]: unknown } {
  const { portMappings, dnsConfig, annotations } = config;
  const ports = portMappings
    .filter(({ hostPort }) => hostPort > 0)
    .map(({ protocol, containerPort, hostPort, hostIp }) => ({
      hostPort,
      containerPort,
      protocol: protocolName(protocol),
      hostIP: hostIp,
    }));
  const { servers = [], searches = [], options = [] } = dnsConfig ?? {};
  const bandwidth = bandwidthOf(annotations);
  return {
    'io.kubernetes.cri.pod-annotations': annotations,
    ...(ports.length > 0 && { portMappings: ports }),
    ...(bandwidth !== undefined && { bandwidth }),
    ...(dnsConfig !== undefined && { dns: { servers, searches, options } }),
    ...(cgroupParent !== '' && { cgroupPath: cgroupParent }),
  };
}

function protocolName(protocol: Protocol): string {
  const name = { [Protocol.TCP]: 'tcp', [Protocol.UDP]: 'udp', [Protocol.SCTP]: 'sctp' }[protocol] as
    string | undefined;
  if (name === undefined)
    throw invalidArgument(`there is no protocol ${String(protocol)} for ports: invalid argument`);
  return name;
}

/** Those of the pod's own interface, without the lengths of their prefixes. IPv4 goes first, as kubelet expects of a node with both. */
function addressesOf({ ips, interfaces }: Result): string[] {
  const own = ips.filter(
    ({ interface: index }) => index === undefined || interfaces[index]?.sandbox !== undefined,
  );
  const plain = own.map(({ address }) => address.replace(/\/\d+$/, ''));
  return [
    ...plain.filter((address) => !address.includes(':')),
    ...plain.filter((address) => address.includes(':')),
  ];
}
