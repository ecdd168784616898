/** The image that pods hold their namespaces with: what the configuration names, or one made here of the program that comes with Moor. */
import { createHash } from 'node:crypto';
import { pauseProgram } from '../../native/native.ts';
import { hostPlatform } from '../../oci/platform.ts';
import type { Descriptor } from '../../proto/gen/containerd/types/descriptor.ts';
import { RpcError, notFound, toRpcError } from '../../ttrpc/errors.ts';
import { type Entry, NO_XATTRS } from '../diff/archive/entry.ts';
import { END_OF_ARCHIVE, encodeEntry, paddingOf } from '../diff/archive/writer.ts';
import type { Session } from '../distribution/distribution.ts';
import { childrenOf, labelChildren } from '../distribution/graph.ts';
import { OCI_CONFIG, OCI_LAYER, OCI_MANIFEST } from '../distribution/media-types.ts';
import type { Cri } from './cri.ts';
import { pullImage } from './image-pull.ts';
import type { LocalImage } from './local-images.ts';
import { Label } from './pod.ts';
import { KUBERNETES } from './registry.ts';

/** No registry has this host. */
const NAME = 'localhost/moor/pause:1';
const LABELS = { [Label.Image]: 'managed', [Label.Pinned]: 'pinned' };
/** Where runtimes mount things, so that they need not write to the image. */
const DIRECTORIES = ['dev', 'etc', 'proc', 'sys', 'tmp'];

/**
 * The image for a new pod, unpacked. When it is not there it is pulled, or made where the configuration names none.
 *
 * @throws RpcError as pulls fail
 */
export async function sandboxImage(cri: Cri, snapshotter: string, signal: AbortSignal): Promise<LocalImage> {
  const { sandbox_image: configured } = cri.settings;
  const name = configured === '' ? NAME : configured;
  let image = await cri.images.find(name);
  if (image === undefined) {
    await cri.turns.take(name, signal, () => bring(cri, configured, signal));
    image = await cri.images.find(name);
  }
  if (image === undefined) throw notFound(`sandbox image ${JSON.stringify(name)}: not found`);
  await cri.images.unpack(image, snapshotter, signal);
  return image;
}

async function bring(cri: Cri, configured: string, signal: AbortSignal): Promise<void> {
  if (configured === '') return make(cri, signal);
  try {
    await pullImage(cri, configured, undefined, signal);
  } catch (error) {
    const { code, message } = toRpcError(error);
    throw new RpcError(code, `failed to get sandbox image ${JSON.stringify(configured)}: ${message}`, {
      cause: error,
    });
  }
}

async function make({ distribution }: Cri, signal: AbortSignal): Promise<void> {
  const session = { namespace: KUBERNETES, lease: undefined, signal, report: () => undefined };
  await distribution.leased(session, async (leased) => {
    const layer = layerOf(pauseProgram());
    const { os, architecture } = hostPlatform();
    const config = Buffer.from(
      JSON.stringify({
        os,
        architecture,
        config: { Entrypoint: ['/pause'] },
        rootfs: { type: 'layers', diff_ids: [digestOf(layer)] },
      }),
    );
    const parts = {
      config: await store(distribution, leased, OCI_CONFIG, config),
      layers: [await store(distribution, leased, OCI_LAYER, layer)],
    };
    const json = ({ mediaType, digest, size }: Descriptor) => ({ mediaType, digest, size: Number(size) });
    const manifest = Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: OCI_MANIFEST,
        config: json(parts.config),
        layers: parts.layers.map(json),
      }),
    );
    const target = await store(distribution, leased, OCI_MANIFEST, manifest);
    await labelChildren(distribution.content, KUBERNETES, target, childrenOf(target, manifest));
    await distribution.name(leased, NAME, target, LABELS);
  });
}

async function store(
  { content }: Cri['distribution'],
  { lease, signal }: Session,
  mediaType: string,
  bytes: Buffer,
): Promise<Descriptor> {
  const digest = await content.put(KUBERNETES, `pause-${digestOf(bytes)}`, bytes, { lease, signal });
  return { mediaType, digest, size: BigInt(bytes.length), annotations: {} };
}

function layerOf(program: Buffer): Buffer {
  const entries = DIRECTORIES.map((name) => encodeEntry(entryOf('directory', `${name}/`, 0)));
  const file = [encodeEntry(entryOf('file', 'pause', program.length)), program, paddingOf(program.length)];
  return Buffer.concat([...entries, ...file, END_OF_ARCHIVE]);
}

/** Of no owner and time that could tell two of them apart: every host makes the same image of the same program. */
function entryOf(kind: Entry['kind'], name: string, size: number): Entry {
  const time = { seconds: 0, nanos: 0 };
  return {
    kind,
    name,
    size,
    mode: 0o755,
    uid: 0,
    gid: 0,
    linkName: '',
    major: 0,
    minor: 0,
    mtime: time,
    atime: time,
    xattrs: NO_XATTRS,
  };
}

function digestOf(bytes: Buffer): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}
