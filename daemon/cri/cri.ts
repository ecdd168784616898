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
import type { TaskManager } from '../runtime/manager.ts';
import { ContainerEvents } from './events.ts';
import { LocalImages } from './local-images.ts';
import { PodNetworks } from './network.ts';
import { Pod, PodContainer } from './pod.ts';
import { Registry } from './registry.ts';
import type { CriSettings } from './settings.ts';

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
  readonly networks = new PodNetworks();
  readonly events = new ContainerEvents();
  /** What changes a pod or a container is done one after the other, by its id. */
  readonly turns = new Turns();
  readonly #closing = new AbortController();

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
  }

  /** Reads what there is. Tasks are known by then. */
  static async open(options: CriOptions): Promise<Cri> {
    const cri = new Cri(options);
    for (const directory of [cri.root, cri.state]) mkdirSync(directory, { recursive: true, mode: 0o711 });
    return cri;
  }

  /** Aborted when the daemon stops. */
  get closing(): AbortSignal {
    return this.#closing.signal;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    this.networks.close();
  }

  /** The directory of a pod's small files that containers have mounted. */
  podDirectory(id: string): string {
    return join(this.state, 'pods', id);
  }
}
