/** Moving images, by the daemon: it does the work, and tells how far it is. */
import {
  ImageExportStream,
  ImageImportStream,
  ImageStore,
  OCIRegistry,
} from '../proto/gen/containerd/types/transfer.ts';
import type { Platform } from '../proto/gen/containerd/types/platform.ts';
import { Content as ContentEnd, Registry, Store } from '../proto/gen/moor/transfer/v1.ts';
import type { CallOptions, PartialMessage } from '../ttrpc/service.ts';
import { type Any, anyOf } from './any.ts';
import type { Headers } from '../grpc/channel.ts';
import type { Connection } from './connection.ts';
import { answerQuestions } from './credentials.ts';
import { type Image, Images } from './images.ts';
import type { Descriptor } from './manifest.ts';
import { hostPlatform, normalize } from '../oci/platform.ts';
import { Snapshots } from './snapshots.ts';
import { receiveBytes, sendBytes } from './stream.ts';
import { callOf, type Open, TransferCalls } from './transfer-calls.ts';
import type {
  ExportOptions,
  ImportOptions,
  Platforms,
  Progress,
  PullOptions,
  PushOptions,
  RegistryOptions,
  TransferOptions,
} from './transfer-options.ts';

const PREFIX = 'containerd.types.transfer.';
const OWN_PREFIX = 'moor.transfer.v1.';

export class Transfers {
  readonly #calls: TransferCalls;
  readonly #images: Images;
  readonly #snapshotterName: (name: string, options: CallOptions) => Promise<string>;

  constructor(connection: Connection, headers: Headers, namespace: string) {
    this.#calls = new TransferCalls(connection, headers);
    this.#images = new Images(connection, headers, namespace);
    this.#snapshotterName = (name, options) =>
      new Snapshots(connection, headers, namespace, name).name(options);
  }

  /**
   * Brings an image from a registry. When it is broken off, a later pull goes on where this one has stopped.
   *
   * @param reference `docker.io/library/busybox:latest`
   * @throws RpcError NotFound, Unauthenticated, Unavailable when the registry cannot be reached; Cancelled
   */
  async pull(reference: string, options: PullOptions = {}): Promise<Image> {
    const { name = reference, labels = {}, platforms, allMetadata = false, metadataOnly = false } = options;
    const unpacks = await this.#unpacks(metadataOnly ? { ...options, unpack: false } : options);
    const store = {
      name,
      labels: { ...labels },
      platforms: platformsOf(platforms),
      allMetadata: allMetadata || metadataOnly,
      unpacks,
    };
    await this.#calls.run(options, async (open) => ({
      source: await registryEnd(reference, options, open),
      destination: metadataOnly
        ? anyOf(`${OWN_PREFIX}Store`, Store, { store, metadataOnly })
        : anyOf(`${PREFIX}ImageStore`, ImageStore, store),
    }));
    const image = await this.#images.get(name, callOf(options));
    if (platforms === 'all' && unpacks.length > 0) await this.#unpackAll(image, options);
    return image;
  }

  /** @param reference where to. @throws RpcError NotFound for an image that is not here, and as `pull` */
  async push(reference: string, options: PushOptions = {}): Promise<void> {
    const { source = reference, platforms = [], nonDistributable = false } = options;
    await this.#calls.run(options, async (open) => ({
      source:
        typeof source === 'string'
          ? anyOf(`${PREFIX}ImageStore`, ImageStore, { name: source, platforms: [...platforms] })
          : anyOf(`${OWN_PREFIX}Content`, ContentEnd, { ...source, isImage: true }),
      destination: await registryEnd(reference, { ...options, nonDistributable }, open),
    }));
  }

  /**
   * Stores the images of an archive, an OCI layout or what `docker save` has written, compressed or not.
   *
   * @returns the names of the images
   * @throws RpcError InvalidArgument for what is no such archive
   */
  async import(
    bytes: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    options: ImportOptions = {},
  ): Promise<string[]> {
    const { names = [{ name: '', isPrefix: true, allowOverwrite: true }], labels = {}, platforms } = options;
    const { indexName = '', compress = false, onProgress } = options;
    const unpacks = await this.#unpacks(options);
    const store = {
      labels: { ...labels },
      platforms: platformsOf(platforms),
      unpacks,
      extraReferences: names.map((name) => ({ ...name })),
    };
    const saved: string[] = [];
    const watching = {
      ...options,
      onProgress: (progress: Progress) => {
        if (progress.event === 'saved' && progress.name !== '' && !isDigest(progress.name))
          saved.push(progress.name);
        onProgress?.(progress);
      },
    };
    await this.#calls.run(watching, async (open) => {
      const stream = await open((stream) => sendBytes(stream, bytes));
      return {
        source: anyOf(`${PREFIX}ImageImportStream`, ImageImportStream, {
          stream,
          forceCompress: compress,
        }),
        destination:
          indexName === ''
            ? anyOf(`${PREFIX}ImageStore`, ImageStore, store)
            : anyOf(`${OWN_PREFIX}Store`, Store, { store, indexName }),
      };
    });
    if (platforms === 'all' && unpacks.length > 0) {
      for (const name of saved) await this.#unpackAll(await this.#images.get(name, callOf(options)), options);
    }
    return saved;
  }

  /**
   * Writes an archive of images, which is an OCI layout that `docker load` reads as well.
   *
   * @param names of the images
   * @param write takes the archive, piece by piece
   * @throws RpcError NotFound; what `write` throws
   */
  async export(
    names: readonly string[],
    write: (bytes: Buffer) => Promise<void> | void,
    options: ExportOptions = {},
  ): Promise<void> {
    const { platforms, dockerManifest = true, nonDistributable = true } = options;
    const [name = '', ...more] = names;
    await this.#calls.run(options, async (open) => ({
      source: anyOf(`${PREFIX}ImageStore`, ImageStore, {
        name,
        extraReferences: more.map((name) => ({ name })),
      }),
      destination: anyOf(`${PREFIX}ImageExportStream`, ImageExportStream, {
        stream: await open(async (stream) => {
          for await (const piece of receiveBytes(stream)) await write(piece);
        }),
        platforms: platformsOf(platforms),
        allPlatforms: platforms === 'all',
        skipCompatibilityManifest: !dockerManifest,
        skipNonDistributable: !nonDistributable,
      }),
    }));
  }

  /** Makes the snapshots of an image that is here. @throws RpcError NotFound for an image that is not complete */
  async unpack(
    name: string,
    options: TransferOptions & { readonly platform?: Platform; readonly snapshotter?: string } = {},
  ): Promise<void> {
    const { platform = hostPlatform() } = options;
    const unpacks = await this.#unpacks({ ...options, platforms: [platform] });
    await this.#calls.run(options, () =>
      Promise.resolve({
        source: anyOf(`${PREFIX}ImageStore`, ImageStore, { name }),
        destination: anyOf(`${PREFIX}ImageStore`, ImageStore, { name, unpacks }),
      }),
    );
  }

  /**
   * Brings one thing from a registry: what the reference names, or what has the digest in its repository. Nothing but the
   * client's lease keeps it.
   *
   * @returns its digest and its size
   */
  async fetchObject(
    reference: string,
    options: RegistryOptions & { readonly digest?: string } = {},
  ): Promise<Descriptor> {
    let found: Descriptor | undefined;
    const { digest = '', onProgress } = options;
    const watching = {
      ...options,
      onProgress: (progress: Progress) => {
        if (progress.event === 'resolved') found = progress.descriptor;
        onProgress?.(progress);
      },
    };
    await this.#calls.run(watching, async (open) => ({
      source: await registryEnd(reference, options, open),
      destination: anyOf(`${OWN_PREFIX}Content`, ContentEnd, { digest }),
    }));
    return found ?? { mediaType: '', digest, size: 0n, annotations: {} };
  }

  /** Sends one thing, without what it names. */
  async pushObject(
    reference: string,
    object: { readonly digest: string; readonly mediaType: string },
    options: RegistryOptions = {},
  ): Promise<void> {
    await this.#calls.run(options, async (open) => ({
      source: anyOf(`${OWN_PREFIX}Content`, ContentEnd, { ...object }),
      destination: await registryEnd(reference, options, open),
    }));
  }

  async #unpacks(
    options: CallOptions & {
      readonly unpack?: boolean;
      readonly snapshotter?: string;
      readonly platforms?: Platforms;
    },
  ): Promise<{ platform: Platform; snapshotter: string }[]> {
    const { unpack = true, platforms } = options;
    if (!unpack) return [];
    const snapshotter = await this.#snapshotterName(options.snapshotter ?? '', callOf(options));
    const wanted = platforms === undefined || platforms === 'all' ? [hostPlatform()] : platforms;
    return wanted.map((platform) => ({ platform, snapshotter }));
  }

  /** What this host cannot mount is not unpacked. */
  async #unpackAll(
    image: Image,
    options: TransferOptions & { readonly snapshotter?: string },
  ): Promise<void> {
    const { os } = hostPlatform();
    const { onProgress, snapshotter } = options;
    const more = {
      ...callOf(options),
      ...(onProgress && { onProgress }),
      ...(snapshotter && { snapshotter }),
    };
    for (const parts of await this.#images.platforms(image, callOf(options))) {
      const platform = normalize(parts);
      if (platform.os === os) await this.unpack(image.name, { ...more, platform });
    }
  }
}

async function registryEnd(
  reference: string,
  options: RegistryOptions & { readonly nonDistributable?: boolean },
  open: Open,
): Promise<Any> {
  const { credentials, headers = {}, plainHttp = false, hostsDirectory = '', tls, trace } = options;
  const { concurrency = 0, nonDistributable = false } = options;
  const authStream =
    credentials === undefined
      ? ''
      : await open((stream) => answerQuestions(stream, credentials), { isEndless: true });
  const registry: PartialMessage<OCIRegistry> = {
    reference,
    resolver: {
      authStream,
      headers: { ...headers },
      hostDir: hostsDirectory,
      defaultScheme: plainHttp ? 'http' : '',
      httpDebug: trace === 'headers',
      httpTrace: trace !== undefined,
    },
  };
  if (tls === undefined && concurrency === 0 && !nonDistributable)
    return anyOf(`${PREFIX}OCIRegistry`, OCIRegistry, registry);
  return anyOf(`${OWN_PREFIX}Registry`, Registry, {
    registry,
    maxConcurrency: concurrency,
    nonDistributable,
    ...(tls && {
      tls: {
        ca: bufferOf(tls.ca),
        clientCertificate: bufferOf(tls.certificate),
        clientKey: bufferOf(tls.key),
        skipVerify: tls.skipVerify ?? false,
      },
    }),
  });
}

/** All of them is no restriction. */
function platformsOf(platforms: Platforms | undefined): Platform[] {
  if (platforms === undefined) return [hostPlatform()];
  return platforms === 'all' ? [] : [...platforms];
}

function bufferOf(bytes: Uint8Array = Buffer.alloc(0)): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function isDigest(name: string): boolean {
  return /^[a-z0-9]+:[0-9a-f]{32,}$/.test(name);
}
