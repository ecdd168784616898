/** The daemon's life: what it opens, in which order, and how it lets go again. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { closeRange } from '../native/native.ts';
import { EventsDefinition } from '../proto/gen/containerd/services/events_ttrpc.ts';
import { messageOf } from '../ttrpc/errors.ts';
import { TtrpcServer } from '../ttrpc/server.ts';
import { type Config, timeout, ttrpcAddress } from './config.ts';
import { Caretaker } from './caretaker.ts';
import { CheckpointImages } from './checkpoint/images.ts';
import { Cri, type CriOptions } from './cri/cri.ts';
import { NamespacedContent } from './content/namespaced-content.ts';
import { Differ } from './diff/differ.ts';
import { Differs } from './diff/differs.ts';
import { limitsFrom } from './diff/limits.ts';
import { WalkingDiffer } from './diff/walking.ts';
import { Distribution } from './distribution/distribution.ts';
import { Streams } from './distribution/streams.ts';
import { Exchange } from './events/exchange.ts';
import { Collector } from './gc/collector.ts';
import { contentResource, ingestResource } from './gc/content.ts';
import { containerResource, imageResource, leaseResource, sandboxResource } from './gc/records.ts';
import { GcScheduler, schedulerOptions } from './gc/scheduler.ts';
import type { CallObserver } from './grpc/observer.ts';
import { GrpcServer, type Service } from './grpc/server.ts';
import { Health } from './health.ts';
import { IdleMemory } from './idle-memory.ts';
import { ImageStore } from './images/store.ts';
import { LoadedPlugins, checkPluginNames, isDisabled } from './loaded-plugins.ts';
import { DirectoryLock } from './lock.ts';
import type { Logger } from './log.ts';
import { MetricsEndpoint } from './metrics/endpoint.ts';
import { MetadataStore } from './metadata/store.ts';
import { Links } from './network/links.ts';
import { Networks } from './network/networks.ts';
import { Routes } from './network/routes.ts';
import { notify } from './notify.ts';
import type { Core } from './plugins.ts';
import { Proxies } from './proxy/proxies.ts';
import { RestartMonitor } from './restart/monitor.ts';
import { TaskManager } from './runtime/manager.ts';
import { shimCommand } from './runtime/own-shim.ts';
import { killMembers } from './sandbox/members.ts';
import { ShimController } from './sandbox/shim-controller.ts';
import { Sandboxes } from './sandboxes.ts';
import { shimEventsService } from './services/events-ttrpc.ts';
import { readIdentity } from './services/introspection.ts';
import { milliseconds } from './schema.ts';
import { Snapshotters } from './snapshots/snapshotters.ts';
import { KeptSocket } from './socket.ts';
import { StateDirectory } from './state-directory.ts';
import { version } from './version.ts';

/** Below are standard input, output and error, which the shim template shares. */
const FIRST_PRIVATE_FD = 3;

/** Milliseconds that those who have waited for a daemon have for their first calls before it goes on with what is not for them. */
const HEAD_START_MS = 30;

/** What is in the state directory as long as a daemon runs. */
const STATE_FOLDERS = ['tasks', 's', 'events', 'diff', 'netns', 'cri'];

export class Daemon {
  readonly #config: Config;
  readonly #log: Logger;
  readonly #health = new Health();
  /** Undoes what has been opened, the last first. */
  readonly #opened = new AsyncDisposableStack();
  readonly #sockets: KeptSocket[] = [];
  #stopping: Promise<void> | undefined;

  private constructor(config: Config, log: Logger) {
    this.#config = config;
    this.#log = log;
  }

  /**
   * Takes the directories, finds the tasks of the daemon before it, and serves. Resolves when clients can connect.
   *
   * @throws Error that says what stands in the way; nothing is left open then
   */
  static async start(config: Config, log: Logger): Promise<Daemon> {
    const daemon = new Daemon(config, log);
    try {
      await daemon.#start();
    } catch (error) {
      await daemon.#opened.disposeAsync();
      throw error;
    }
    return daemon;
  }

  /** Finishes the calls in progress, closes everything and leaves the containers alone. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #start(): Promise<void> {
    const config = this.#config;
    const log = this.#log;
    const begin = performance.now();
    checkPluginNames(config);
    mkdirSync(config.root, { recursive: true, mode: 0o711 });
    const lock = new DirectoryLock(config.root);
    this.#opened.defer(() => lock.release());
    const state = new StateDirectory(config.state);
    this.#opened.defer(() => state.release());
    adjustOomScore(config.oom_score, log);
    if (config.temp !== '') {
      mkdirSync(config.temp, { recursive: true, mode: 0o700 });
      process.env.TMPDIR = config.temp;
    }

    const metadata = await MetadataStore.open(join(config.root, 'metadata'));
    this.#opened.defer(() => metadata.close());
    // lmdb opens its file for every child as well, and whoever started the daemon may have left more open: shims live on and
    // must hold nothing of the daemon's.
    closeRange(FIRST_PRIVATE_FD, 'cloexec');
    const exchange = new Exchange(log, join(config.state, 'events'));
    this.#opened.defer(() => exchange.close());
    const { database } = metadata;
    const { plugins } = config;
    const proxies = await Proxies.open(config);
    this.#opened.defer(() => proxies.close());
    const content = new NamespacedContent(
      database,
      await proxies.content(join(config.root, 'content')),
      plugins['io.containerd.metadata.v1.bolt'].content_sharing_policy,
    );
    this.#opened.defer(() => content.close());
    const images = new ImageStore(database, exchange);
    const snapshotters = await Snapshotters.open(
      config.root,
      { database, exchange, log },
      {
        isDisabled: (name) => isDisabled(config, 'Snapshotter', name),
        settings: (name) => plugins[`io.containerd.snapshotter.v1.${name}`],
        more: proxies.snapshotters(),
      },
    );
    this.#opened.defer(() => snapshotters.close());
    const collected = [
      leaseResource,
      containerResource,
      sandboxResource,
      imageResource((namespace, name) => images.deleted(namespace, name)),
      ingestResource(content),
      contentResource(content),
      ...snapshotters.resources({ database }),
    ];
    const collections = new GcScheduler(
      new Collector(database, collected, log),
      schedulerOptions(plugins['io.containerd.gc.v1.scheduler']),
      log,
    );
    this.#opened.defer(() => collections.close());
    const diffs = join(config.state, 'diff');
    mkdirSync(diffs, { recursive: true, mode: 0o711 });
    const differ = new Differ({
      folder: diffs,
      limits: limitsFrom(plugins['io.containerd.differ.v1.walking']),
    });
    this.#opened.defer(() => differ.close());
    const walking = new WalkingDiffer(differ, content);
    const transfers = plugins['io.containerd.transfer.v1.local'];
    const differs = new Differs(
      [walking, ...proxies.differs()],
      plugins['io.containerd.service.v1.diff-service'].default,
      transfers.unpack_config,
    );
    const { leases, containers } = metadata;
    const networks = await Networks.open({ state: config.state, database, containers, exchange, log });
    this.#opened.defer(() => networks.close());
    const links = await Links.open(networks);
    const networking = { networks, links, routes: new Routes(networks) };
    const distribution = new Distribution({ content, images, leases, snapshotters, differs }, transfers);
    await distribution.recover();
    const tasks = new TaskManager({
      state: config.state,
      addresses: { grpc: config.grpc.address, ttrpc: ttrpcAddress(config) },
      events: exchange,
      log,
      shim: shimCommand(),
      spawn: config.shim.spawn,
      debug: log.isLevelEnabled('debug'),
    });
    this.#opened.defer(() => tasks.close());
    const shimSandboxes = new ShimController({
      state: config.state,
      launchers: tasks.launchers,
      store: metadata.sandboxes,
      exchange,
      log,
      killMembers: (key) => killMembers(key, { containers, tasks, log }),
    });
    this.#opened.defer(() => shimSandboxes.close());
    // Shims deliver the events they have kept while their tasks are being found.
    await this.#serveShims(exchange, tasks);
    const recovered = await tasks.recover(shimSandboxes.addresses());
    log.info(recovered, 'tasks recovered');
    await shimSandboxes.recover();

    const cri = await this.#openCri({ metadata, distribution, tasks, exchange });
    const checkpoints = new CheckpointImages(join(config.root, 'checkpoints'), content, walking);
    const disabled = isDisabled(config, 'Monitor', 'cgroups');
    const metrics = new MetricsEndpoint(disabled ? { ...config.metrics, address: '' } : config.metrics, log);
    this.#opened.use(metrics);
    const identity = readIdentity(config.root);
    const health = this.#health;
    const core = {
      config,
      metadata,
      content,
      images,
      snapshotters,
      proxies,
      differs,
      checkpoints,
      distribution,
      streams: new Streams(),
      collections,
      networking,
      metrics,
      exchange,
      tasks,
      sandboxes: new Sandboxes(shimSandboxes, cri),
      cri,
      health,
      identity,
    };
    await metrics.open({ tasks, collections, exchange, metadata: database });
    await proxies.check(log);
    await this.#serveClients(new LoadedPlugins(core, log), metrics);
    exchange.serve();
    collections.start();
    this.#goOnLater(core);
    this.#opened.use(new IdleMemory());
    state.keep(STATE_FOLDERS, async () => {
      exchange.renew();
      await tasks.files.restore();
    });
    this.#opened.use(new Caretaker([state, ...this.#sockets, tasks.files], log)).start();
    notify(log, 'READY=1', `MAINPID=${process.pid}`);
    const milliseconds = Math.round(performance.now() - begin);
    log.info({ address: config.grpc.address, pid: process.pid, version, milliseconds }, 'serving');
  }

  /** What no client waits for. */
  #goOnLater(core: Core): void {
    const timer = setTimeout(() => {
      this.#keepContainers(core);
      core.tasks
        .prepare()
        .catch((error: unknown) => this.#log.error({ err: error }, 'not ready for a first task'));
    }, HEAD_START_MS);
    this.#opened.defer(() => clearTimeout(timer));
  }

  /** Keeps running what is to be kept running. */
  #keepContainers({ metadata, snapshotters, tasks, exchange }: Core): void {
    if (isDisabled(this.#config, 'Internal', 'restart')) return;
    const { containers, namespaces } = metadata;
    const { interval } = this.#config.plugins['io.containerd.internal.v1.restart'];
    const monitor = new RestartMonitor({
      containers,
      namespaces,
      snapshotters,
      tasks,
      exchange,
      interval: milliseconds(interval)!,
      log: this.#log,
    });
    this.#opened.use(monitor).start();
  }

  async #openCri(
    core: Pick<CriOptions, 'metadata' | 'distribution' | 'tasks' | 'exchange'>,
  ): Promise<Cri | undefined> {
    if (isDisabled(this.#config, 'Grpc', 'cri')) return undefined;
    const { root, state, cri: settings } = this.#config;
    return this.#opened.use(await Cri.open({ ...core, root, state, settings, log: this.#log }));
  }

  async #serveShims(exchange: Exchange, tasks: TaskManager): Promise<void> {
    const log = this.#log;
    const address = ttrpcAddress(this.#config);
    const server = new TtrpcServer({
      onError: (error) => log.warn({ err: error }, 'a connection of a shim failed'),
    });
    server.add(EventsDefinition, shimEventsService(exchange, tasks));
    const socket = await KeptSocket.open(address, this.#config.ttrpc, (fd) => server.listenFd(fd));
    this.#sockets.push(socket);
    this.#opened.defer(async () => {
      await server.close();
      socket.remove();
    });
  }

  async #serveClients(plugins: LoadedPlugins, { calls }: MetricsEndpoint): Promise<void> {
    const { grpc, cri } = this.#config;
    await this.#serveGrpc(grpc.address, plugins.services, calls);
    if (cri.address === '') return;
    const forKubelet = plugins.services.filter(({ definition }) =>
      definition.fullName.startsWith('runtime.'),
    );
    await this.#serveGrpc(cri.address, forKubelet, calls);
  }

  async #serveGrpc(
    address: string,
    services: readonly Service[],
    observer: CallObserver | undefined,
  ): Promise<void> {
    const { grpc } = this.#config;
    const server = new GrpcServer({
      maxReceiveBytes: grpc.max_recv_message_size,
      maxSendBytes: grpc.max_send_message_size,
      log: this.#log,
      observer,
    });
    for (const service of services) server.add(service);
    const socket = await KeptSocket.open(address, grpc, (fd) => server.listen(fd));
    this.#sockets.push(socket);
    this.#opened.defer(async () => {
      await server.close(timeout(this.#config, 'moor.timeout.shutdown'));
      socket.remove();
    });
  }

  async #stop(): Promise<void> {
    this.#log.info('stopping; containers run on');
    notify(this.#log, 'STOPPING=1');
    this.#health.stop();
    await this.#opened.disposeAsync();
    this.#log.info('stopped');
  }
}

/** Says how willing the kernel should be to kill the daemon when memory is short (proc_pid_oom_score_adj(5)). */
function adjustOomScore(score: number, log: Logger): void {
  if (score === 0) return;
  try {
    writeFileSync('/proc/self/oom_score_adj', String(score));
  } catch (error) {
    // Lowering it takes CAP_SYS_RESOURCE, which a daemon in a container often lacks.
    log.warn({ score, error: messageOf(error) }, 'oom_score cannot be set');
  }
}
