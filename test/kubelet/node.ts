/**
 * A node of Kubernetes: moord with a network, and a real kubelet upon it. `apart` gives it what a machine has but one of: a network with
 * the node's address, places for logs, a name.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { request } from 'node:https';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { stringify } from 'yaml';
import { Kubelet as Runtime } from '../harness/cri.ts';
import { eventually } from '../harness/wait.ts';

/** As `apart` has named it and given it. */
export const NODE = 'moor-node';
export const ADDRESS = '10.99.0.1';
/** Kubelet's port that does things. */
export const API = `https://${ADDRESS}:10250`;

const CGROUPS = '/sys/fs/cgroup';

/** What a test reads of `v1.Pod`. */
export interface Pod {
  readonly metadata: { readonly name: string; readonly namespace: string; readonly uid: string };
  readonly status: {
    readonly phase: string;
    readonly podIP?: string;
    readonly conditions?: readonly { readonly type: string; readonly status: string }[];
    readonly initContainerStatuses?: readonly ContainerStatus[];
    readonly containerStatuses?: readonly ContainerStatus[];
  };
}

/** A `v1.Pod` as people write it. */
export interface Manifest {
  readonly metadata: { readonly name: string; readonly labels?: { readonly [name: string]: string } };
  readonly spec: object;
}

export interface ContainerStatus {
  readonly name: string;
  readonly ready: boolean;
  readonly restartCount: number;
  readonly containerID?: string;
  readonly imageID: string;
  readonly state: ContainerStates;
  readonly lastState: ContainerStates;
}

export interface ContainerStates {
  readonly waiting?: { readonly reason: string; readonly message?: string };
  readonly running?: { readonly startedAt: string };
  readonly terminated?: Terminated;
}

export interface Terminated {
  readonly exitCode: number;
  readonly reason: string;
  readonly message?: string;
  readonly startedAt: string;
  readonly finishedAt: string;
}

export class Node implements AsyncDisposable {
  readonly runtime: Runtime;
  readonly directory: string;
  /** Where kubelet looks for pods that no server tells it of. */
  readonly manifests: string;
  readonly log: string;
  readonly #flags: readonly string[];
  #kubelet: ChildProcess | undefined;

  private constructor(runtime: Runtime, flags: readonly string[]) {
    this.runtime = runtime;
    this.#flags = flags;
    this.directory = runtime.daemon.directory;
    this.manifests = join(this.directory, 'manifests');
    this.log = join(this.directory, 'kubelet.log');
  }

  /** Starts moord and then kubelet. @param settings of kubelet's configuration, beside what every node here has */
  static async start(settings: object = {}, flags: readonly string[] = []): Promise<Node> {
    const runtime = await Runtime.start({
      cri: '[cri.runtimes.other]\nruntime_type = "io.containerd.runc.v2"',
    });
    const node = new Node(runtime, flags);
    try {
      mkdirSync(node.manifests);
      node.#makeCgroup();
      node.configure(settings);
      await node.startKubelet();
    } catch (error) {
      await node[Symbol.asyncDispose]();
      throw error;
    }
    return node;
  }

  /** What a kubelet that starts will be told. */
  configure(settings: object): void {
    const configuration = {
      apiVersion: 'kubelet.config.k8s.io/v1beta1',
      kind: 'KubeletConfiguration',
      address: ADDRESS,
      readOnlyPort: 10255,
      healthzPort: 0,
      authentication: { anonymous: { enabled: true }, webhook: { enabled: false } },
      authorization: { mode: 'AlwaysAllow' },
      staticPodPath: this.manifests,
      fileCheckFrequency: '2s',
      syncFrequency: '2s',
      cgroupDriver: 'cgroupfs',
      cgroupRoot: `/${this.runtime.cgroup}`,
      failSwapOn: false,
      makeIPTablesUtilChains: false,
      oomScoreAdj: 0,
      volumePluginDir: join(this.directory, 'volume-plugins'),
      // What a disk of the machine has left is not what is asked here.
      evictionHard: { 'nodefs.available': '1Mi' },
      imageGCHighThresholdPercent: 100,
      ...settings,
    };
    writeFileSync(join(this.directory, 'kubelet.yaml'), stringify(configuration));
  }

  async startKubelet(): Promise<void> {
    const { directory, runtime } = this;
    const args = [
      `--config=${join(directory, 'kubelet.yaml')}`,
      `--root-dir=${join(directory, 'kubelet')}`,
      `--cert-dir=${join(directory, 'pki')}`,
      '--container-runtime=remote',
      `--container-runtime-endpoint=unix://${runtime.daemon.address}`,
      `--hostname-override=${NODE}`,
      `--node-ip=${ADDRESS}`,
      '--v=4',
      ...this.#flags,
    ];
    const log = openSync(this.log, 'a');
    const child = spawn(join(programs(), 'kubelet'), args, { stdio: ['ignore', log, log] });
    closeSync(log);
    this.#kubelet = child;
    await eventually(
      'kubelet is healthy',
      async () => {
        if (child.exitCode !== null) throw new Error(`kubelet ended:\n${this.tail()}`);
        return (await this.get('/healthz')) === 'ok';
      },
      { within: 120_000 },
    );
  }

  async stopKubelet(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const child = this.#kubelet;
    this.#kubelet = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill(signal);
    await ended;
  }

  /** A page of kubelet's port for reading. */
  async get(path: string): Promise<string> {
    const response = await fetch(`http://${ADDRESS}:10255${path}`, { signal: AbortSignal.timeout(20_000) });
    const page = await response.text();
    if (!response.ok) throw new Error(`${path}: ${response.status} ${page}`);
    return page;
  }

  /** An answer of the port that does things, whose certificate kubelet has made for itself. */
  async ask(path: string, method = 'GET'): Promise<string> {
    const options = { method, rejectUnauthorized: false, timeout: 30_000, agent: false };
    const asked = request(`${API}${path}`, options).end();
    const [response] = (await once(asked, 'response')) as [IncomingMessage];
    const answer = await text(response);
    if (response.statusCode !== 200) throw new Error(`${path}: ${response.statusCode} ${answer}`);
    return answer;
  }

  /** Writes a manifest, which kubelet takes for a pod on this node. */
  apply(pod: Manifest): void {
    const file = join(this.manifests, `${pod.metadata.name}.yaml`);
    // Kubelet reads it as soon as it is there: it must be whole.
    const draft = join(this.directory, 'manifest');
    writeFileSync(draft, stringify({ apiVersion: 'v1', kind: 'Pod', ...pod }));
    renameSync(draft, file);
  }

  delete(name: string): void {
    rmSync(join(this.manifests, `${name}.yaml`));
  }

  /** The pod as kubelet sees it, which adds the node to the names of its own pods. */
  async pod(name: string): Promise<Pod | undefined> {
    const { items } = JSON.parse(await this.get('/pods')) as { items: Pod[] | null };
    return items?.find(({ metadata }) => metadata.name === `${name}-${NODE}`);
  }

  /** What kubelet has said last. */
  tail(lines = 40): string {
    return readFileSync(this.log, 'utf8').trimEnd().split('\n').slice(-lines).join('\n');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stopKubelet('SIGKILL');
    await this.runtime[Symbol.asyncDispose]();
  }

  /** All pods' cgroups are in one of this node's own, so that those of the machine stay as they are. */
  #makeCgroup(): void {
    for (const controller of readdirSync(CGROUPS)) {
      const group = join(CGROUPS, controller, this.runtime.cgroup);
      mkdirSync(group, { recursive: true });
      if (controller !== 'cpuset') continue;
      for (const name of ['cpuset.cpus', 'cpuset.mems'])
        writeFileSync(join(group, name), readFileSync(join(CGROUPS, controller, name)));
    }
  }
}

/** Where `build` has put Kubernetes' programs. */
function programs(): string {
  const directory = process.env['KUBERNETES_PROGRAMS'];
  if (directory === undefined) throw new Error('KUBERNETES_PROGRAMS does not say where they are');
  return directory;
}
