/** What the calls of the CRI share: the records, and the daemon's core below them. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { ImageServiceDefinition, RuntimeServiceDefinition } from '../../proto/gen/runtime/v1/api.ts';
import type { ServiceImplementation } from '../../ttrpc/service.ts';
import type { Distribution } from '../distribution/distribution.ts';
import { Turns } from '../distribution/turns.ts';
import type { Exchange } from '../events/exchange.ts';
import type { Logger } from '../log.ts';
import type { MetadataStore } from '../metadata/store.ts';
import { Kind } from '../metadata/schema.ts';
import type { Exit } from '../runtime/exit.ts';
import type { TaskManager } from '../runtime/manager.ts';
import { ContainerEvents } from './events.ts';
import { Exits } from './exits.ts';
import { LocalImages } from './local-images.ts';
import { PodNetworks } from './network.ts';
import { Pod, PodContainer } from './pod.ts';
import { recoverPods } from './recovery.ts';
import { Registry } from './registry.ts';
import type { CriSettings } from './settings.ts';
import { targetsOf } from './streaming.ts';
import { StreamingServer } from './streaming/server.ts';

type RuntimeService = ServiceImplementation<typeof RuntimeServiceDefinition>;

/** Some of the calls of `runtime.v1.RuntimeService`. */
export type Calls<K extends keyof RuntimeService> = Pick<RuntimeService, K>;
export type ImageCalls = ServiceImplementation<typeof ImageServiceDefinition>;

export interface CriOptions {
  readonly settings: CriSettings;
  /** The daemon's directories; what belongs to the CRI is in `cri` below each. */
  readonly root: string;
  readonly state: string;
  readonly metadata: MetadataStore;
  readonly distribution: Distribution;
  readonly tasks: TaskManager;
  readonly exchange: Exchange;
  readonly log: Logger;
}

export class Cri implements CriOptions, AsyncDisposable {
  readonly settings: CriSettings;
  readonly root: string;
  readonly state: string;
  readonly metadata: MetadataStore;
  readonly distribution: Distribution;
  readonly tasks: TaskManager;
  readonly exchange: Exchange;
  readonly log: Logger;
  readonly pods: Registry<Pod>;
  readonly containers: Registry<PodContainer>;
  readonly images: LocalImages;
  readonly networks: PodNetworks;
  readonly events: ContainerEvents;
  readonly streams: StreamingServer;
  /** Ends that were heard of before it was written down that the container runs. */
  readonly earlyExits = new Map<string, Exit>();
  /** What changes a pod or a container is done one after the other, by its id. */
  readonly turns = new Turns();
  readonly exits: Exits;
  readonly #closing = new AbortController();
  #recovered: Promise<void> = Promise.resolve();

  private constructor(options: CriOptions) {
    const { database } = options.metadata;
    this.settings = options.settings;
    this.root = join(options.root, 'cri');
    this.state = join(options.state, 'cri');
    this.metadata = options.metadata;
    this.distribution = options.distribution;
    this.tasks = options.tasks;
    this.exchange = options.exchange;
    this.log = options.log;
    this.pods = new Registry({ database, what: 'sandbox', kind: Kind.Pod, type: Pod });
    this.containers = new Registry({
      database,
      what: 'container',
      kind: Kind.PodContainer,
      type: PodContainer,
    });
    this.images = new LocalImages(options.distribution);
    this.networks = new PodNetworks({
      settings: options.settings.cni,
      root: this.root,
      state: this.state,
      log: options.log,
    });
    this.events = new ContainerEvents(this);
    this.streams = new StreamingServer(options.settings.streaming, targetsOf(this), options.log);
    this.exits = new Exits(this);
  }

  /** Reads what there is and learns what has ended meanwhile. Tasks are known by then. What was half-done is seen to in the background. */
  static async open(options: CriOptions): Promise<Cri> {
    const cri = new Cri(options);
    for (const directory of [cri.root, cri.state]) mkdirSync(directory, { recursive: true, mode: 0o711 });
    await cri.exits.start();
    cri.#recovered = recoverPods(cri);
    return cri;
  }

  /** Resolves when what a daemon before this one had begun is undone or finished, and names that it had reserved are free. */
  get recovered(): Promise<void> {
    return this.#recovered;
  }

  /** The containers of a pod. */
  containersOf(podId: string): PodContainer[] {
    return this.containers.list().filter((container) => container.podId === podId);
  }

  /** Aborted when the daemon stops. */
  get closing(): AbortSignal {
    return this.#closing.signal;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await this.streams[Symbol.asyncDispose]();
    await this.exits.settled();
    this.networks.close();
  }

  /** The directory of a pod's small files that containers have mounted. */
  podDirectory(id: string): string {
    return join(this.state, 'pods', id);
  }
}
