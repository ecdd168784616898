/** Attaching containers to networks by CNI plugins: the specification's 1.0, and what plugins of older versions answer. */
import type { Logger } from 'pino';
import { failedPrecondition, invalidArgument, messageOf, notFound } from '../../ttrpc/errors.ts';
import { Turns } from '../distribution/turns.ts';
import { parseLinkName } from '../network/names.ts';
import { ProgramLock } from '../program-lock.ts';
import { AttachmentCache, type Cached } from './cache.ts';
import { type NetworkList, type PluginConfig, isAtLeast, isName } from './network-list.ts';
import { type Attachment, DEFAULT_TIMEOUT_MS, Plugins } from './plugin.ts';
import { type RawResult, type Result, resultOf } from './result.ts';

export interface CniOptions {
  /** Directories of plugins, in the order they are looked through. */
  readonly plugins: readonly string[];
  /** The directory of the attachments; durable. */
  readonly cache: string;
  /** A file by which a new daemon waits for the plugins of the one before it. */
  readonly lock: string;
  readonly log: Logger;
  /** Milliseconds that a plugin is given. */
  readonly timeout?: number;
}

/** CHECK came with this version, and that DEL is told the result. */
const CHECK_SINCE = '0.4.0';
/** Plugins of the daemon before may take as long as they were given, and this much longer, in milliseconds. */
const PATIENCE_MS = 10_000;

export class Cni {
  readonly #plugins: Plugins;
  readonly #cache: AttachmentCache;
  readonly #lock: ProgramLock;
  readonly #log: Logger;
  readonly #turns = new Turns();

  private constructor(options: CniOptions, lock: ProgramLock) {
    this.#lock = lock;
    this.#plugins = new Plugins(options.plugins, lock, options.timeout);
    this.#cache = new AttachmentCache(options.cache);
    this.#log = options.log;
  }

  /** Waits for the plugins of the daemon before. What it had not finished is for `recover`. */
  static async open(options: CniOptions): Promise<Cni> {
    const { lock, timeout = DEFAULT_TIMEOUT_MS } = options;
    return new Cni(options, await ProgramLock.take(lock, timeout + PATIENCE_MS));
  }

  close(): void {
    this.#lock.release();
  }

  /**
   * Attaches: the plugins of the list do their ADD, one after the other. When one fails, all are undone.
   *
   * @param signal ends it between two plugins
   * @throws RpcError InvalidArgument, NotFound for a plugin, FailedPrecondition when it is attached already, and the plugins' own failures
   */
  async add(list: NetworkList, attachment: Attachment, signal?: AbortSignal): Promise<Result> {
    check(attachment);
    if (attachment.netns === '') throw invalidArgument('a network namespace must be given: invalid argument');
    return this.#turn(list, attachment, async () => {
      if (this.#cache.get(list.name, attachment) !== undefined) {
        throw failedPrecondition(
          `${attachment.ifName} of container ${attachment.containerId} is attached to CNI network ${list.name} already: failed precondition`,
        );
      }
      // What cannot be finished is better not begun.
      for (const { type } of list.plugins) this.#plugins.find(type);
      // The intent: whoever finds it without a result has something to undo.
      this.#cache.put({ list, attachment });
      try {
        let result: RawResult | undefined;
        for (const plugin of list.plugins) {
          signal?.throwIfAborted();
          const config = configFor(list, plugin, attachment, result);
          result = await this.#plugins.run(plugin.type, 'ADD', config, attachment);
        }
        const answer = resultOf(result!);
        this.#cache.put({ list, attachment, result: result! });
        return answer;
      } catch (error) {
        await this.#undo({ list, attachment });
        throw error;
      }
    });
  }

  /**
   * Detaches: DEL, in the opposite order, with the configuration and the result of the ADD as far as they are known. Detaching
   * what is not attached is fine, and so is repeating it.
   *
   * @throws RpcError with the failure of the first plugin that cannot; it can be repeated
   */
  async remove(list: NetworkList, attachment: Attachment): Promise<void> {
    check(attachment);
    await this.#turn(list, attachment, async () => {
      const cached = this.#cache.get(list.name, attachment);
      // The network namespace may be gone since, which only the caller knows.
      await this.#remove(
        cached === undefined
          ? { list, attachment }
          : { ...cached, attachment: { ...cached.attachment, netns: attachment.netns } },
      );
    });
  }

  /**
   * Detaches a container from everything that it is attached to, or was about to be, whatever has become of the configurations.
   *
   * @param netns the path of its network namespace; empty when that is gone
   * @throws RpcError with the failure of the first plugin that cannot; it can be repeated
   */
  async detach(containerId: string, netns: string): Promise<void> {
    for (const { list, attachment } of this.#cache.list(containerId))
      await this.remove(list, { ...attachment, netns });
  }

  /**
   * Asks the plugins whether the attachment is as it should be.
   *
   * @throws RpcError NotFound when it is not attached, FailedPrecondition for versions without CHECK, and what plugins find
   */
  async check(list: NetworkList, attachment: Attachment): Promise<void> {
    check(attachment);
    await this.#turn(list, attachment, async () => {
      const cached = this.#cache.get(list.name, attachment);
      if (cached?.result === undefined)
        throw notFound(
          `container ${attachment.containerId} is not attached to CNI network ${list.name}: not found`,
        );
      const { list: used, result } = cached;
      if (used.disableCheck) return;
      if (!isAtLeast(used.cniVersion, CHECK_SINCE))
        throw failedPrecondition(`CNI ${used.cniVersion} has no CHECK: failed precondition`);
      for (const plugin of used.plugins)
        await this.#plugins.run(
          plugin.type,
          'CHECK',
          configFor(used, plugin, cached.attachment, result),
          cached.attachment,
        );
    });
  }

  /** The attachments there are, of one container or of all, with their results. */
  attachments(
    containerId?: string,
  ): { readonly network: string; readonly attachment: Attachment; readonly result: Result }[] {
    return this.#cache
      .list(containerId)
      .filter(({ result }) => result !== undefined)
      .map(({ list, attachment, result }) => ({ network: list.name, attachment, result: resultOf(result!) }));
  }

  /** Versions of the specification that a plugin speaks. @throws RpcError NotFound */
  async versions(type: string): Promise<readonly string[]> {
    const answer = await this.#plugins.run(type, 'VERSION', { cniVersion: '1.0.0' });
    const versions = answer['supportedVersions'];
    return Array.isArray(versions) ? (versions as string[]) : [];
  }

  /** Throws unless every plugin is there and speaks the list's version. @throws RpcError NotFound, FailedPrecondition */
  async validate(list: NetworkList): Promise<void> {
    for (const { type } of list.plugins) {
      const versions = await this.versions(type);
      if (!versions.includes(list.cniVersion)) {
        throw failedPrecondition(
          `CNI plugin ${type} does not speak version ${list.cniVersion} of network ${list.name}, but ${versions.join(', ')}: failed precondition`,
        );
      }
    }
  }

  /** Undoes what the daemon before had begun and not finished. */
  async recover(): Promise<void> {
    for (const cached of this.#cache.list()) if (cached.result === undefined) await this.#undo(cached);
  }

  async #undo(cached: Cached): Promise<void> {
    try {
      await this.#remove(cached);
    } catch (error) {
      // The intent stays, for the next start and for whoever detaches.
      const { containerId, ifName } = cached.attachment;
      this.#log.warn(
        { network: cached.list.name, containerId, ifName, error: messageOf(error) },
        'CNI attachment cannot be undone yet',
      );
    }
  }

  async #remove({ list, attachment, result }: Cached): Promise<void> {
    const prior = isAtLeast(list.cniVersion, CHECK_SINCE) ? result : undefined;
    for (const plugin of list.plugins.toReversed())
      await this.#plugins.run(plugin.type, 'DEL', configFor(list, plugin, attachment, prior), attachment);
    this.#cache.delete(list.name, attachment);
  }

  /** Plugins must not be run for one container and interface at the same time (section 4, lifecycle). */
  #turn<T>(list: NetworkList, { containerId, ifName }: Attachment, action: () => Promise<T>): Promise<T> {
    return this.#turns.take(`${list.name}/${containerId}/${ifName}`, undefined, action);
  }
}

/** What a plugin is told (section 3, deriving the execution configuration). */
function configFor(
  { name, cniVersion }: NetworkList,
  plugin: PluginConfig,
  { capabilities = {} }: Attachment,
  prevResult: RawResult | undefined,
): object {
  const wanted = Object.entries(plugin.capabilities ?? {}).filter(
    ([capability, isWanted]) => isWanted && Object.hasOwn(capabilities, capability),
  );
  const runtimeConfig = Object.fromEntries(
    wanted.map(([capability]) => [capability, capabilities[capability]]),
  );
  return {
    ...plugin,
    name,
    cniVersion,
    ...(wanted.length === 0 ? {} : { runtimeConfig }),
    ...(prevResult === undefined ? {} : { prevResult }),
  };
}

function check({ containerId, ifName, args = [] }: Attachment): void {
  if (!isName(containerId)) {
    throw invalidArgument(
      `container id ${JSON.stringify(containerId.slice(0, 96))} is malformed: invalid argument`,
    );
  }
  parseLinkName(ifName, 'interface');
  for (const part of args.flat())
    if (part === '' || /[;=]/.test(part))
      throw invalidArgument(`CNI argument ${JSON.stringify(part)} is malformed: invalid argument`);
}
