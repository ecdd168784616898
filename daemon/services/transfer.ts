import {
  AuthRequest,
  AuthResponse,
  AuthType,
  ImageExportStream,
  ImageImportStream,
  ImageStore,
  OCIRegistry,
  Progress,
} from '../../proto/gen/containerd/types/transfer.ts';
import { TransferDefinition } from '../../proto/gen/containerd/services/transfer.ts';
import type { Any } from '../../proto/gen/google/protobuf/any.ts';
import { invalidArgument, unimplemented } from '../../ttrpc/errors.ts';
import type { CallContext } from '../../ttrpc/service.ts';
import { messageAny, typeNameOf } from '../distribution/any.ts';
import type { Credentials, CredentialSource } from '../distribution/auth.ts';
import { ByteSender, receiveBytes } from '../distribution/byte-stream.ts';
import type { Distribution, Session } from '../distribution/distribution.ts';
import { exportImages } from '../distribution/export.ts';
import { importImages } from '../distribution/import.ts';
import { nameImported } from '../distribution/naming.ts';
import { hostPlatform, normalize, targetsOf } from '../distribution/platform.ts';
import type { Report } from '../distribution/progress.ts';
import { type Selection, fetchImage } from '../distribution/pull.ts';
import { pushImage } from '../distribution/push.ts';
import { parseReference } from '../distribution/reference.ts';
import { Registry } from '../distribution/registry.ts';
import type { Channel, Streams } from '../distribution/streams.ts';
import { unpackImage } from '../distribution/unpack-image.ts';
import { leaseOf, namespaceOf } from '../grpc/context.ts';
import { type Service, service } from '../grpc/server.ts';
import { DEFAULT_SNAPSHOTTER } from '../snapshots/snapshotter.ts';

const types = { OCIRegistry, ImageStore, ImageImportStream, ImageExportStream };

type End = {
  [K in keyof typeof types]: { readonly kind: K; readonly value: ReturnType<(typeof types)[K]['decode']> };
}[keyof typeof types];

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
        await distribution.leased(session, (leased) =>
          transfer.run(leased, endOf('source', source), endOf('destination', destination)),
        );
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
    if (source.kind === 'OCIRegistry' && destination.kind === 'ImageStore')
      return this.#pull(session, source.value, destination.value);
    if (source.kind === 'ImageStore' && destination.kind === 'OCIRegistry')
      return this.#push(session, source.value, destination.value);
    if (source.kind === 'ImageStore' && destination.kind === 'ImageStore')
      return this.#tag(session, source.value, destination.value);
    if (source.kind === 'ImageImportStream' && destination.kind === 'ImageStore')
      return this.#import(session, source.value, destination.value);
    if (source.kind === 'ImageStore' && destination.kind === 'ImageExportStream')
      return this.#export(session, source.value, destination.value);
    throw unimplemented(
      `transfer from ${source.kind} to ${destination.kind} is not possible: not implemented`,
    );
  }

  async #pull(session: Session, from: OCIRegistry, to: ImageStore): Promise<void> {
    const { report } = session;
    report({ event: `Resolving from ${from.reference}` });
    await using registry = await this.#registry(from);
    const target = await fetchImage(this.#distribution, session, registry, selectionOf(to));
    await this.#distribution.name(session, to.name || from.reference, target, to.labels);
    for (const { name } of to.extraReferences.filter(({ isPrefix, name }) => !isPrefix && name !== ''))
      await this.#distribution.name(session, name, target, to.labels);
    report({ event: `Completed pull from ${from.reference}` });
  }

  async #push(session: Session, from: ImageStore, to: OCIRegistry): Promise<void> {
    const { images } = this.#distribution;
    const { target } = images.get(session.namespace, from.name);
    session.report({ event: `Pushing to ${to.reference}` });
    await using registry = await this.#registry(to);
    await pushImage(this.#distribution, session, registry, target!, targetsOf(from.platforms));
    session.report({ event: `Completed push to ${to.reference}` });
  }

  async #tag(session: Session, from: ImageStore, to: ImageStore): Promise<void> {
    const { target, labels } = this.#distribution.images.get(session.namespace, from.name);
    await this.#distribution.name(session, to.name, target!, { ...labels, ...to.labels });
  }

  async #import(session: Session, { stream }: ImageImportStream, to: ImageStore): Promise<void> {
    const channel = this.#streams.get(session.namespace, stream);
    session.report({ event: 'Importing' });
    try {
      const bytes = receiveBytes(channel, session.signal);
      const found = await importImages(this.#distribution, session, bytes);
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
      const platforms = to.allPlatforms ? [] : targetsOf(to.platforms);
      await exportImages(this.#distribution, session, names, (bytes) => sender.send(bytes), {
        targets: to.allPlatforms || platforms.length > 0 ? platforms : [hostPlatform()],
        dockerManifest: !to.skipCompatibilityManifest,
        nonDistributable: !to.skipNonDistributable,
      });
    } finally {
      channel.close();
    }
    session.report({ event: 'Completed export' });
  }

  #registry({ reference, resolver }: OCIRegistry): Promise<Registry> {
    return Registry.open(parseReference(reference), {
      credentials: this.#credentials(reference, resolver?.authStream ?? ''),
      headers: resolver?.headers ?? {},
      directory: resolver?.hostDir || this.#distribution.hosts,
      scheme: resolver?.defaultScheme,
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
    targets: targetsOf(platforms),
    allMetadata,
    manifestLimit,
    unpacks: unpacks.map(({ platform, snapshotter }) => ({
      target: platform === undefined ? undefined : normalize(platform),
      snapshotter: snapshotter || DEFAULT_SNAPSHOTTER,
    })),
  };
}

function endOf(what: string, any: Any | undefined): End {
  if (any === undefined) throw invalidArgument(`${what} must be set: invalid argument`);
  const name = typeNameOf(any);
  const kind = name.slice(PREFIX.length);
  if (!name.startsWith(PREFIX) || !Object.hasOwn(types, kind))
    throw unimplemented(
      `${what} of the type ${JSON.stringify(name.slice(0, 160))} is not known: not implemented`,
    );
  const type = types[kind as keyof typeof types];
  return { kind, value: type.decode(any.value) } as End;
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
