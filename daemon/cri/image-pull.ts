/** PullImage: from a registry, with the credentials of the request, to an image by its tag, its digest and its id. */
import type { AuthConfig } from '../../proto/gen/runtime/v1/api.ts';
import { deadlineExceeded, internal, invalidArgument } from '../../ttrpc/errors.ts';
import type { Credentials, CredentialSource } from '../distribution/auth.ts';
import type { Report } from '../distribution/progress.ts';
import { fetchImage } from '../distribution/pull.ts';
import { nameOf, parseReference } from '../distribution/reference.ts';
import { Registry } from '../distribution/registry.ts';
import { hostPlatform } from '../../oci/platform.ts';
import { milliseconds } from '../schema.ts';
import type { Cri } from './cri.ts';
import { familiarToFull } from './local-images.ts';
import { Label } from './pod.ts';
import { KUBERNETES } from './registry.ts';

/** What Docker's registry is called in configurations of credentials. */
const DOCKER = /^(?:index|registry-1|www)\.docker\.io$/;

/**
 * @returns the image's id, by which kubelet names it from then on
 * @throws RpcError InvalidArgument for a reference or credentials that are none; NotFound, Unauthenticated, Unavailable as the
 *         registry has it; DeadlineExceeded when nothing comes any more
 */
export async function pullImage(
  cri: Cri,
  name: string,
  auth: AuthConfig | undefined,
  signal: AbortSignal,
): Promise<string> {
  const full = familiarToFull(name);
  const parsed = parseReference(full);
  // A digest says it all; a tag beside it is a remark.
  const reference = parsed.digest === undefined ? parsed : { ...parsed, tag: undefined };
  const { distribution, settings } = cri;
  const { snapshotter } = settings;
  using patience = new Patience(full, milliseconds(settings.image_pull_progress_timeout)!);
  const session = {
    namespace: KUBERNETES,
    lease: undefined,
    signal: AbortSignal.any([signal, cri.closing, patience.signal]),
    report: patience.report,
  };
  await using registry = await Registry.open(reference, {
    credentials: credentialsFor(auth, reference.host),
    directory: distribution.hosts,
  });
  // The registry's connections are kept until then.
  return await distribution.leased(
    session,
    async (leased) => {
      const target = hostPlatform();
      const unpacks = [{ target, snapshotter }];
      const found = await fetchImage(distribution, leased, registry, { targets: [target], unpacks });
      const digested = `${nameOf(reference)}@${found.digest}`;
      const tagged = reference.tag === undefined ? [] : [`${nameOf(reference)}:${reference.tag}`];
      const labels = labelsFor(cri, tagged[0] ?? digested);
      for (const each of [...tagged, digested]) await distribution.name(leased, each, found, labels);
      const image = await cri.images.find(digested);
      if (image === undefined) throw internal(`image ${full} is not to be found after its pull`);
      // By this kubelet and the garbage collection know it when its tag has gone to another.
      await distribution.name(leased, image.id, found, labels);
      return image.id;
    },
    `pull ${full}`,
  );
}

/** The image that pods are held by must not be collected by kubelet. */
function labelsFor({ settings: { sandbox_image: pause } }: Cri, name: string): { [key: string]: string } {
  const isPause = pause !== '' && familiarToFull(pause) === name;
  return { [Label.Image]: 'managed', ...(isPause && { [Label.Pinned]: 'pinned' }) };
}

/**
 * What the registry is shown when it asks. Nothing of it is kept, and nothing told.
 *
 * @throws RpcError InvalidArgument for what holds no credentials
 */
export function credentialsFor(auth: AuthConfig | undefined, host: string): CredentialSource | undefined {
  if (auth === undefined || !isFor(auth.serverAddress, host)) return undefined;
  const credentials = credentialsOf(auth);
  return credentials && (() => Promise.resolve(credentials));
}

function credentialsOf(auth: AuthConfig): Credentials | undefined {
  const { username, password, identityToken, registryToken, auth: encoded } = auth;
  if (username !== '') return { kind: 'password', username, secret: password };
  if (identityToken !== '') return { kind: 'refresh', secret: identityToken };
  if (registryToken !== '') return { kind: 'header', value: `Bearer ${registryToken}` };
  if (encoded === '') return undefined;
  const [, name, secret] = /^([^:]*):(.*)$/s.exec(Buffer.from(encoded, 'base64').toString()) ?? [];
  if (name === undefined || secret === undefined) {
    throw invalidArgument('auth of the image is not base64 of USER:PASSWORD: invalid argument');
  }
  // Docker pads them.
  return { kind: 'password', username: name, secret: secret.replace(/\0+$/, '') };
}

/** Whether credentials for an address are for this registry; those without an address are for any. */
function isFor(address: string, host: string): boolean {
  if (address === '') return true;
  const url = URL.parse(address.includes('://') ? address : `https://${address}`);
  if (url === null) return false;
  return url.host === host || (host === 'docker.io' && DOCKER.test(url.host));
}

/** Gives a pull up that brings nothing for too long. What is being unpacked takes the time that it takes. */
class Patience implements Disposable {
  readonly #what: string;
  readonly #timeoutMs: number;
  readonly #stop = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #extracting = 0;

  constructor(what: string, timeoutMs: number) {
    this.#what = what;
    this.#timeoutMs = timeoutMs;
    this.#wait();
  }

  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  readonly report: Report = ({ event }) => {
    if (event === 'extracting') this.#extracting += 1;
    if (event === 'extracted') this.#extracting -= 1;
    this.#wait();
  };

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }

  #wait(): void {
    clearTimeout(this.#timer);
    if (this.#timeoutMs === 0 || this.#extracting > 0) return;
    const reason = (): Error =>
      deadlineExceeded(`pull of ${this.#what}: nothing has come for ${this.#timeoutMs / 1000} s`);
    this.#timer = setTimeout(() => this.#stop.abort(reason()), this.#timeoutMs);
  }
}
