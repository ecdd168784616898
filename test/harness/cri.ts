/** Kubernetes' side of the CRI: a daemon with a network of CNI plugins and an image, and what a kubelet says to it. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { chmodSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import {
  type ContainerConfig,
  type ContainerStatus,
  type ExecSyncResponse,
  ImageServiceDefinition,
  NamespaceMode,
  type PodSandboxConfig,
  type PodSandboxStatus,
  RuntimeServiceDefinition,
} from '../../proto/gen/runtime/v1/api.ts';
import type { PartialMessage, ServiceClient } from '../../ttrpc/service.ts';
import { pauseProgram } from '../../native/native.ts';
import { pidsIn, removeCgroups } from './cgroups.ts';
import { Ctr } from './ctr.ts';
import { Daemon, type DaemonOptions, mountsBelow, type Peer } from './daemon.ts';
import { busyboxImage, makeImage, ociArchive } from './image.ts';
import { list } from './leftovers.ts';
import { killProcess } from './processes.ts';
import type { Connection } from './rpc.ts';
import { eventually } from './wait.ts';

export const BUSYBOX = 'registry.example/busybox:1';
export const KUBERNETES = 'k8s.io';
/** What containerd's pods are held by: the same program as ours. */
const PAUSE = 'registry.example/pause:1';

/** Where Debian has them. */
export const PLUGINS = '/usr/lib/cni';

/** A network that no other daemon on the host has. */
export interface PodNetwork {
  readonly bridge: string;
  /** `10.200.7`: pods have addresses in this /24. */
  readonly prefix: string;
  /** Where host-local keeps what it has given away. */
  readonly leases: string;
}

export interface KubeletOptions extends Pick<DaemonOptions, 'env'> {
  /** Ours unless given. What is said of `[cri]` below is for ours alone. */
  readonly peer?: Peer;
  /** Keys of `[cri]`, as TOML. */
  readonly cri?: string;
  /** Keys of `[cri.cni]`. */
  readonly cni?: string;
  /** Tables and keys beside `[cri]`. */
  readonly config?: string;
  /** Without a network configuration, as on a node whose network has yet to be installed. */
  readonly bare?: boolean;
}

type PodChanges = PartialMessage<PodSandboxConfig>;
export type ContainerChanges = PartialMessage<ContainerConfig>;

/** A container's security context, beside what is usual. */
export const security = (
  securityContext: NonNullable<NonNullable<ContainerChanges['linux']>['securityContext']>,
): ContainerChanges => ({ linux: { securityContext } });

/** A pod as it was asked for. */
export interface RunningPod {
  readonly id: string;
  readonly config: PodChanges;
}

export class Kubelet implements AsyncDisposable {
  readonly daemon: Daemon;
  readonly network: PodNetwork;
  /** The cgroup that all pods are in. */
  readonly cgroup: string;
  /** The directory of CNI configurations. */
  readonly configurations: string;
  #connection: Connection;

  private constructor(daemon: Daemon, network: PodNetwork, configurations: string) {
    this.daemon = daemon;
    this.network = network;
    this.configurations = configurations;
    this.cgroup = basename(daemon.directory);
    this.#connection = daemon.connect();
  }

  /** Starts a daemon with a network, and an image named `BUSYBOX`. */
  static async start(options: KubeletOptions = {}): Promise<Kubelet> {
    const { peer = 'moord', cri = '', cni = '', config = '', env = {}, bare = false } = options;
    const home = `/tmp/k-${randomBytes(4).toString('hex')}`;
    const configurations = join(home, 'net.d');
    mkdirSync(configurations, { recursive: true });
    const daemon = await Daemon.start(peer, {
      config:
        peer === 'containerd'
          ? containerdConfig(home, configurations)
          : `[cri]\n${cri}\n[cri.cni]\nconf_dir = "${configurations}"\nbin_dirs = ["${join(home, 'bin')}", "${PLUGINS}"]\n${cni}\n${config}`,
      env,
      cri: true,
    });
    // Whoever is root in a user namespace has to get to its files.
    chmodSync(daemon.directory, 0o711);
    daemon.use({
      async [Symbol.asyncDispose]() {
        rmSync(home, { recursive: true, force: true });
      },
    });
    const network = {
      bridge: `m${randomBytes(5).toString('hex')}`,
      prefix: `10.${128 + (randomBytes(1)[0]! % 120)}.${randomBytes(1)[0]}`,
      leases: join(home, 'leases'),
    };
    const kubelet = new Kubelet(daemon, network, configurations);
    if (!bare) kubelet.configure('10-pods.conflist');
    const archive = ociArchive(join(daemon.directory, 'busybox.tar'), [[BUSYBOX], await busyboxImage()]);
    await kubelet.ctr().ok('images', 'import', archive);
    if (peer === 'containerd') await kubelet.#settle();
    return kubelet;
  }

  /** Gives containerd its pause image. It hears of images and of networks by and by, where ours knows them at once. */
  async #settle(): Promise<void> {
    const image = await makeImage([{ pause: pauseProgram() }], { config: { Entrypoint: ['/pause'] } });
    const archive = ociArchive(join(this.daemon.directory, 'pause.tar'), [[PAUSE], image]);
    await this.ctr().ok('images', 'import', archive);
    await eventually('containerd is ready for pods', async () => {
      const { status } = await this.runtime.status({});
      const { images } = await this.images.listImages({});
      const names = images.flatMap(({ repoTags }) => repoTags);
      const hasImages = [PAUSE, BUSYBOX].every((name) => names.includes(name));
      return hasImages && status!.conditions.every(({ status: isMet }) => isMet);
    });
  }

  /** Where plugins can be put that come before Debian's. */
  get binaries(): string {
    return join(this.configurations, '../bin');
  }

  get runtime(): ServiceClient<typeof RuntimeServiceDefinition> {
    return this.#connection.service(RuntimeServiceDefinition);
  }

  get images(): ServiceClient<typeof ImageServiceDefinition> {
    return this.#connection.service(ImageServiceDefinition);
  }

  /** Debian's ctr in Kubernetes' namespace. */
  ctr(): Ctr {
    // Not the daemon's own: its end would take every container on the host with it that is in a cgroup of that name.
    return new Ctr(this.daemon.address, KUBERNETES, join(this.daemon.directory, 'fifo'));
  }

  /** Writes a network configuration. */
  configure(file: string, plugins: readonly object[] = this.plugins()): void {
    const list = { cniVersion: '1.0.0', name: `pods-${this.network.bridge}`, plugins };
    writeFileSync(join(this.configurations, file), JSON.stringify(list));
  }

  /** A bridge, addresses, and ports of the host. */
  plugins(): object[] {
    const { bridge, prefix, leases } = this.network;
    const ipam = {
      type: 'host-local',
      ranges: [[{ subnet: `${prefix}.0/24` }]],
      routes: [{ dst: '0.0.0.0/0' }],
      dataDir: leases,
    };
    return [
      { type: 'bridge', bridge, isGateway: true, ipMasq: true, hairpinMode: true, ipam },
      { type: 'portmap', capabilities: { portMappings: true }, snat: true },
    ];
  }

  /** What a reboot does to the files of a daemon that has ended: those of its state are gone. */
  loseState(): void {
    const { state } = this.daemon;
    for (const mount of mountsBelow(state).reverse()) execFileSync('umount', ['-l', mount]);
    rmSync(state, { recursive: true, force: true });
  }

  /** kill -9 of the daemon, a new one, and a connection with it. */
  async restart(): Promise<void> {
    await this.daemon.restart();
    this.#connection[Symbol.dispose]();
    this.#connection = this.daemon.connect();
  }

  /** What a kubelet asks for a pod of an ordinary deployment. */
  pod(name: string, changes: PodChanges = {}): PodChanges {
    const uid = randomUUID();
    const { linux, ...rest } = changes;
    return {
      metadata: { name, uid, namespace: 'default', attempt: 0 },
      hostname: name,
      logDirectory: join(this.daemon.directory, `logs/default_${name}_${uid}`),
      dnsConfig: { servers: ['10.96.0.10'], searches: ['default.svc.cluster.local'], options: ['ndots:5'] },
      labels: {
        'io.kubernetes.pod.name': name,
        'io.kubernetes.pod.namespace': 'default',
        'io.kubernetes.pod.uid': uid,
      },
      annotations: { 'kubernetes.io/config.source': 'api' },
      ...rest,
      linux: {
        cgroupParent: `/${this.cgroup}/pod${uid}`,
        securityContext: { namespaceOptions: { pid: NamespaceMode.CONTAINER } },
        ...linux,
      },
    };
  }

  async runPod(name: string, changes: PodChanges = {}, runtimeHandler = ''): Promise<RunningPod> {
    const config = this.pod(name, changes);
    mkdirSync(config.logDirectory!, { recursive: true });
    const { podSandboxId: id } = await this.runtime.runPodSandbox({ config, runtimeHandler });
    return { id, config };
  }

  /** Creates a container of a pod. */
  async create(
    pod: RunningPod,
    name: string,
    command: readonly string[],
    changes: ContainerChanges = {},
  ): Promise<string> {
    const { linux, ...rest } = changes;
    const config: ContainerChanges = {
      metadata: { name, attempt: 0 },
      image: { image: BUSYBOX },
      command: [...command],
      labels: { ...pod.config.labels, 'io.kubernetes.container.name': name },
      annotations: { 'io.kubernetes.container.hash': '1' },
      logPath: `${name}/0.log`,
      ...rest,
      linux: {
        resources: { cpuShares: 102n, oomScoreAdj: 1000n },
        securityContext: {
          namespaceOptions: { pid: NamespaceMode.CONTAINER },
          maskedPaths: ['/proc/kcore', '/proc/keys', '/sys/firmware'],
          readonlyPaths: ['/proc/bus', '/proc/sys'],
        },
        ...linux,
      },
    };
    mkdirSync(join(pod.config.logDirectory!, name), { recursive: true });
    const request = { podSandboxId: pod.id, config, sandboxConfig: pod.config };
    return (await this.runtime.createContainer(request)).containerId;
  }

  /** Creates a container of a pod and starts it. */
  async run(...what: Parameters<Kubelet['create']>): Promise<string> {
    const containerId = await this.create(...what);
    await this.runtime.startContainer({ containerId });
    return containerId;
  }

  /** How a program ends in a container, and what it prints. */
  attempt(containerId: string, ...cmd: string[]): Promise<ExecSyncResponse> {
    return this.runtime.execSync({ containerId, cmd, timeout: 30n });
  }

  /** What a program prints in a container; it must succeed. */
  async exec(containerId: string, ...cmd: string[]): Promise<string> {
    const { stdout, stderr, exitCode } = await this.attempt(containerId, ...cmd);
    assert.equal(exitCode, 0, `${cmd.join(' ')}: ${stderr.toString()}`);
    return stdout.toString();
  }

  /** What a program in a container complains of; it must fail. */
  async complaint(containerId: string, ...cmd: string[]): Promise<string> {
    const { stdout, stderr, exitCode } = await this.attempt(containerId, ...cmd);
    assert.notEqual(exitCode, 0, `${cmd.join(' ')}: ${stdout.toString()}`);
    return stderr.toString();
  }

  async podStatus(id: string): Promise<PodSandboxStatus> {
    return (await this.runtime.podSandboxStatus({ podSandboxId: id })).status!;
  }

  async status(containerId: string): Promise<ContainerStatus> {
    return (await this.runtime.containerStatus({ containerId })).status!;
  }

  /** The process that holds the pod's namespaces. */
  async pidOf(podSandboxId: string): Promise<number> {
    const { info } = await this.runtime.podSandboxStatus({ podSandboxId, verbose: true });
    return (JSON.parse(info['info']!) as { pid: number }).pid;
  }

  /** What of pods and their containers is on the host: mounts, bundles, files, networks, addresses. Nothing when all are removed. */
  left(): string[] {
    const { daemon, network } = this;
    return [
      ...mountsBelow(daemon.directory),
      ...list(join(daemon.state, 'cri/netns')),
      ...list(join(daemon.state, 'cri/pods')),
      ...list(join(daemon.state, 'tasks', KUBERNETES)).filter((name) => !name.startsWith('.')),
      ...list(join(daemon.root, 'cri/cni/results')),
      ...list(join(network.leases, `pods-${network.bridge}`)).filter((name) => /^\d/.test(name)),
    ];
  }

  /** Stops and removes a pod with everything in it. */
  async removePod(id: string): Promise<void> {
    await this.runtime.stopPodSandbox({ podSandboxId: id });
    await this.runtime.removePodSandbox({ podSandboxId: id });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      const { items } = await this.runtime.listPodSandbox({});
      for (const { id } of items) await this.removePod(id);
    } catch {
      // A daemon that a test has left dead or stuck is ended below.
    }
    this.#connection[Symbol.dispose]();
    for (const pid of pidsIn(this.cgroup)) await killProcess(pid);
    await this.daemon.stop();
    removeCgroups(this.cgroup);
    rmLink(this.network.bridge);
  }
}

function rmLink(name: string): void {
  try {
    execFileSync('ip', ['link', 'delete', name], { stdio: 'ignore' });
  } catch {
    // No pod has needed it.
  }
}

/** Everything is below its own directories, runc's state too. */
function containerdConfig(home: string, configurations: string): string {
  const cri = 'plugins."io.containerd.grpc.v1.cri"';
  return `
[${cri}]
sandbox_image = "${PAUSE}"
stream_server_address = "127.0.0.1"
stream_server_port = "0"
netns_mounts_under_state_dir = true
restrict_oom_score_adj = true
[${cri}.cni]
bin_dir = "${PLUGINS}"
conf_dir = "${configurations}"
[${cri}.containerd]
snapshotter = "overlayfs"
[${cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[${cri}.containerd.runtimes.runc.options]
Root = "${join(home, 'runc')}"
`;
}
