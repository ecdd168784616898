/** `runtime.v1.ImageService`: images as kubelet has them. */
import type { Image, ImageFilter, ImageSpec } from '../../proto/gen/runtime/v1/api.ts';
import { Code, invalidArgument, isCode } from '../../ttrpc/errors.ts';
import type { Cri, ImageCalls } from './cri.ts';
import { pullImage } from './image-pull.ts';
import { ImageUsage } from './image-usage.ts';
import { type LocalImage, digestsOf, tagsOf } from './local-images.ts';
import { KUBERNETES } from './registry.ts';

/** Images in one message of a stream. */
const CHUNK = 100;

export function imageCalls(cri: Cri): ImageCalls {
  const usage = new ImageUsage(cri);
  return {
    async listImages({ filter }) {
      return { images: (await selected(cri, filter)).map(toImage) };
    },
    async *streamImages({ filter }) {
      const images = (await selected(cri, filter)).map(toImage);
      for (let from = 0; from < images.length; from += CHUNK)
        yield { images: images.slice(from, from + CHUNK) };
    },
    async imageStatus({ image, verbose }) {
      const found = await cri.images.find(named(image));
      // What is not there is no error: kubelet pulls it then.
      if (found === undefined) return { info: {} };
      const info = { chainID: found.chainId, imageSpec: found.document };
      return { image: toImage(found), info: verbose ? { info: JSON.stringify(info) } : {} };
    },
    async pullImage({ image, auth }, { signal }) {
      return { imageRef: await pullImage(cri, named(image), auth, signal) };
    },
    async removeImage({ image }) {
      const found = await cri.images.find(named(image));
      for (const name of found?.names ?? []) await remove(cri, name);
      return {};
    },
    async imageFsInfo(_request, { signal }) {
      const filesystem = await usage.read(signal);
      return { imageFilesystems: [filesystem], containerFilesystems: [filesystem] };
    },
  };
}

/** @throws RpcError InvalidArgument when no image is named */
function named(spec: ImageSpec | undefined): string {
  const reference = spec?.image ?? '';
  if (reference === '') throw invalidArgument('an image must be named: invalid argument');
  return reference;
}

async function selected(cri: Cri, filter: ImageFilter | undefined): Promise<LocalImage[]> {
  const reference = filter?.image?.image ?? '';
  if (reference === '') return cri.images.list();
  const image = await cri.images.find(reference);
  return image === undefined ? [] : [image];
}

async function remove(cri: Cri, name: string): Promise<void> {
  try {
    await cri.distribution.images.delete(KUBERNETES, name);
  } catch (error) {
    // Somebody else has removed it meanwhile.
    if (!isCode(error, Code.NotFound)) throw error;
  }
}

/** The user that the configuration names, as a number or by name; the group is none of the CRI's business. */
function userOf(text: string): Pick<Image, 'uid' | 'username'> {
  const [user = ''] = text.split(':');
  // Beyond 63 bits it is no number that the API could carry.
  if (/^\d{1,18}$/.test(user)) return { uid: { value: BigInt(user) }, username: '' };
  return { username: user };
}

function toImage(image: LocalImage): Image {
  const { id, size, config, isPinned } = image;
  return {
    id,
    repoTags: tagsOf(image),
    repoDigests: digestsOf(image),
    size: BigInt(size),
    pinned: isPinned,
    ...userOf(config.user),
  };
}
