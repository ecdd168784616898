import {
  AuthRequest,
  AuthResponse,
  AuthType,
  type ImageExportStream,
  type ImageImportStream,
  type ImageStore,
  Progress,
} from '../../proto/gen/containerd/types/transfer.ts';
import { TransferDefinition } from '../../proto/gen/containerd/services/transfer.ts';
import type { Descriptor } from '../../proto/gen/containerd/types/descriptor.ts';
import type { Any } from '../../proto/gen/google/protobuf/any.ts';
import type { Content, Tls as WireTls } from '../../proto/gen/moor/transfer/v1.ts';
import { invalidArgument, unimplemented } from '../../ttrpc/errors.ts';
import type { CallContext } from '../../ttrpc/service.ts';
import { parseDigest } from '../content/digest.ts';
import { messageAny, typeNameOf } from '../distribution/any.ts';
import type { Credentials, CredentialSource } from '../distribution/auth.ts';
import { ByteSender, receiveBytes } from '../distribution/byte-stream.ts';
import type { Distribution, Session } from '../distribution/distribution.ts';
import { download } from '../distribution/download.ts';
import { exportImages } from '../distribution/export.ts';
import { importImages } from '../distribution/import.ts';
import { nameImported } from '../distribution/naming.ts';
import { type Platform, hostPlatform, normalize } from '../../oci/platform.ts';
import { type Report, tracer } from '../distribution/progress.ts';
import { type Selection, fetchImage } from '../distribution/pull.ts';
import { pushImage, pushObject } from '../distribution/push.ts';
import { parseReference } from '../distribution/reference.ts';
import { Registry } from '../distribution/registry.ts';
import type { Channel, Streams } from '../distribution/streams.ts';
import type { Tls } from '../distribution/transport.ts';
import { Places } from '../distribution/turns.ts';
import { unpackImage } from '../distribution/unpack-image.ts';
import { leaseOf, namespaceOf } from '../grpc/context.ts';
import { type Service, service } from '../grpc/server.ts';
import { DEFAULT_SNAPSHOTTER } from '../snapshots/snapshotter.ts';
import { type End, endOf } from './transfer-ends.ts';

type From = Extract<End, { kind: 'registry' }>['value'];
type To = Extract<End, { kind: 'store' }>['value'];

const PREFIX = 'containerd.types.transfer.';

/** Moves images between registries, archives and the store; what is possible is told by the ends. */
export function transferService(distribution: Distribution, streams: Streams): Service {
  return service(TransferDefinition, {
    async transfer({ source, destination, options }, context) {
      const namespace = namespaceOf(context);
      const progress = options?.progressStream ? streams.get(namespace, options.progressStream) : undefined;
      const session: Session = {
        namespace,
        lease: leaseOf(context),
        signal: context.signal,
        report: reporter(progress),
      };
      try {
        const transfer = new Transfer(distribution, streams, context);
        const ends = [endOf('source', source), endOf('destination', destination)] as const;
        await distribution.leased(session, (leased) => transfer.run(leased, ...ends), purposeOf(...ends));
        return {};
      } finally {
        progress?.close();
      }
    },
  });
}

class Transfer {
  readonly #distribution: Distribution;
  readonly #streams: Streams;
  readonly #context: CallContext;

  constructor(distribution: Distribution, streams: Streams, context: CallContext) {
    this.#distribution = distribution;
    this.#streams = streams;
    this.#context = context;
  }

  async run(session: Session, source: End, destination: End): Promise<void> {
    if (source.kind === 'registry' && destination.kind === 'store')
      return this.#pull(session, source.value, destination.value);
    if (source.kind === 'registry' && destination.kind === 'content')
      return this.#fetch(session, source.value, destination.value);
    if (source.kind === 'store' && destination.kind === 'registry')
      return this.#push(session, source.value.store, destination.value);
    if (source.kind === 'content' && destination.kind === 'registry')
      return this.#pushContent(session, source.value, destination.value);
    if (source.kind === 'store' && destination.kind === 'store')
      return this.#tag(session, source.value.store, destination.value.store);
    if (source.kind === 'importStream' && destination.kind === 'store')
      return this.#import(session, source.value, destination.value);
    if (source.kind === 'store' && destination.kind === 'exportStream')
      return this.#export(session, source.value.store, destination.value);
    throw unimplemented(
      `transfer from ${source.kind} to ${destination.kind} is not possible: not implemented`,
    );
  }

  async #pull(session: Session, from: From, { store: to, metadataOnly }: To): Promise<void> {
    const { report } = session;
    const { reference } = from.registry;
    report({ event: `Resolving from ${reference}` });
    await using registry = await this.#registry(session, from);
    const selection = { ...selectionOf(to), metadataOnly };
    const target = await fetchImage(this.#distribution, limited(session, from), registry, selection);
    await this.#distribution.name(session, to.name || reference, target, to.labels);
    for (const { name } of to.extraReferences.filter(({ isPrefix, name }) => !isPrefix && name !== ''))
      await this.#distribution.name(session, name, target, to.labels);
    report({ event: `Completed pull from ${reference}` });
  }

  /** Brings one thing, which only the lease of the call holds. */
  async #fetch(session: Session, from: From, { digest }: Content): Promise<void> {
    await using registry = await this.#registry(session, from);
    const { signal } = session;
    const found =
      digest === '' ? await registry.resolve(signal) : await registry.find(parseDigest(digest), signal);
    session.report({ event: 'resolved', name: found.digest, desc: found });
    const { content, downloads } = this.#distribution;
    await download(registry, found, { content, downloads, ...session });
  }

  async #push(session: Session, from: ImageStore, to: From): Promise<void> {
    const { target } = this.#distribution.images.get(session.namespace, from.name);
    await this.#send(session, target!, to, from.platforms.map(normalize));
  }

  async #pushContent(session: Session, { digest, mediaType, isImage }: Content, to: From): Promise<void> {
    const { size } = this.#distribution.content.info(session.namespace, parseDigest(digest));
    if (mediaType === '') throw invalidArgument('content is pushed with a media type: invalid argument');
    const descriptor = { mediaType, digest, size, annotations: {} };
    if (isImage) return this.#send(session, descriptor, to, []);
    await using registry = await this.#registry(session, to);
    await pushObject(this.#distribution, session, registry, descriptor);
  }

  async #send(session: Session, target: Descriptor, to: From, targets: Platform[]): Promise<void> {
    const { reference } = to.registry;
    const { nonDistributable } = to;
    session.report({ event: `Pushing to ${reference}` });
    await using registry = await this.#registry(session, to);
    const options = { targets, nonDistributable };
    await pushImage(this.#distribution, limited(session, to), registry, target, options);
    session.report({ event: `Completed push to ${reference}` });
  }

  /** Gives another name, or unpacks for another platform, or both. */
  async #tag(session: Session, from: ImageStore, to: ImageStore): Promise<void> {
    const { target, labels } = this.#distribution.images.get(session.namespace, from.name);
    for (const job of selectionOf(to).unpacks ?? [])
      await unpackImage(this.#distribution, session, target!, job);
    if (to.name === from.name) return;
    await this.#distribution.name(session, to.name, target!, { ...labels, ...to.labels });
  }

  async #import(
    session: Session,
    { stream, forceCompress, mediaType }: ImageImportStream,
    { store: to, indexName }: To,
  ): Promise<void> {
    const channel = this.#streams.get(session.namespace, stream);
    session.report({ event: 'Importing' });
    try {
      const bytes = receiveBytes(channel, session.signal);
      const found = await importImages(this.#distribution, session, bytes, {
        compress: forceCompress,
        indexName,
        mediaType,
      });
      for (const { snapshotter, target } of selectionOf(to).unpacks ?? []) {
        for (const { descriptor } of found)
          await unpackImage(this.#distribution, session, descriptor, { snapshotter, target });
      }
      await nameImported(this.#distribution, session, found, to);
    } finally {
      channel.close();
    }
    session.report({ event: 'Completed import' });
  }

  async #export(session: Session, from: ImageStore, to: ImageExportStream): Promise<void> {
    const channel = this.#streams.get(session.namespace, to.stream);
    session.report({ event: 'Exporting' });
    try {
      const sender = new ByteSender(channel, session.signal);
      const names = [from.name, ...from.extraReferences.map(({ name }) => name)].filter(
        (name) => name !== '',
      );
      const platforms = to.allPlatforms ? [] : to.platforms.map(normalize);
      await exportImages(this.#distribution, session, names, (bytes) => sender.send(bytes), {
        targets: to.allPlatforms || platforms.length > 0 ? platforms : [hostPlatform()],
        dockerManifest: !to.skipCompatibilityManifest,
        nonDistributable: !to.skipNonDistributable,
        mediaType: to.mediaType,
      });
    } finally {
      channel.close();
    }
    session.report({ event: 'Completed export' });
  }

  #registry({ report }: Session, { registry: { reference, resolver }, tls }: From): Promise<Registry> {
    const isTraced = resolver?.httpTrace === true || resolver?.httpDebug === true;
    return Registry.open(parseReference(reference), {
      credentials: this.#credentials(reference, resolver?.authStream ?? ''),
      headers: resolver?.headers ?? {},
      directory: resolver?.hostDir || this.#distribution.hosts,
      scheme: resolver?.defaultScheme,
      tls: tls && tlsOf(tls),
      trace: isTraced ? tracer(report, resolver.httpDebug) : undefined,
    });
  }

  /** The client is asked when a registry wants credentials, one question at a time. */
  #credentials(reference: string, stream: string): CredentialSource | undefined {
    if (stream === '') return undefined;
    const channel = this.#streams.get(namespaceOf(this.#context), stream);
    let last: Promise<unknown> = Promise.resolve();
    return (host, wwwauthenticate, signal) => {
      const asked = last.then(async () => {
        const request = { host, reference, wwwauthenticate: [...wwwauthenticate] };
        await channel.send(messageAny(`${PREFIX}AuthRequest`, AuthRequest, request), signal);
        const answer = await channel.receive(signal);
        return answer === undefined ? undefined : credentialsFrom(answer);
      });
      last = asked.catch(() => undefined);
      return asked;
    };
  }
}

function limited(session: Session, { maxConcurrency }: From): Session {
  return maxConcurrency === 0 ? session : { ...session, places: new Places(maxConcurrency) };
}

function tlsOf({ ca, clientCertificate, clientKey, skipVerify }: WireTls): Tls {
  const client =
    clientCertificate.length === 0
      ? []
      : [{ cert: clientCertificate, key: clientKey.length === 0 ? clientCertificate : clientKey }];
  return { ca: ca.length === 0 ? [] : [ca], client, skipVerify };
}

/**
 * A pull that was cut off goes on where it was.
 *
 * @throws RpcError InvalidArgument: what is no reference is not written down either
 */
function purposeOf(source: End, destination: End): string | undefined {
  if (source.kind !== 'registry' || destination.kind !== 'store') return undefined;
  parseReference(source.value.registry.reference);
  return `pull ${source.value.registry.reference}`;
}

function credentialsFrom(answer: Any): Credentials | undefined {
  if (typeNameOf(answer) !== `${PREFIX}AuthResponse`)
    throw invalidArgument('the client answers with something else than credentials: invalid argument');
  const { authType, username, secret } = AuthResponse.decode(answer.value);
  switch (authType) {
    case AuthType.CREDENTIALS:
      return username === '' ? { kind: 'refresh', secret } : { kind: 'password', username, secret };
    case AuthType.REFRESH:
      return { kind: 'refresh', secret };
    case AuthType.HEADER:
      return { kind: 'header', value: secret };
    case AuthType.NONE:
      return undefined;
    default:
      throw invalidArgument('the client answers with credentials of an unknown kind: invalid argument');
  }
}

function selectionOf({ platforms, allMetadata, manifestLimit, unpacks }: ImageStore): Selection {
  return {
    targets: platforms.map(normalize),
    allMetadata,
    manifestLimit,
    unpacks: unpacks.map(({ platform, snapshotter }) => ({
      target: platform === undefined ? undefined : normalize(platform),
      snapshotter: snapshotter || DEFAULT_SNAPSHOTTER,
    })),
  };
}

function reporter(channel: Channel | undefined): Report {
  if (channel === undefined) return () => undefined;
  return ({ event, name = '', parents = [], progress = 0, total = 0, desc }) => {
    const message = { event, name, parents: [...parents], progress: BigInt(progress), total: BigInt(total) };
    channel.post(
      messageAny(`${PREFIX}Progress`, Progress, desc === undefined ? message : { ...message, desc }),
    );
  };
}
