import { Code, invalidArgument, isCode, messageOf, notFound } from '../ttrpc/errors.ts';
import type { CallOptions } from '../ttrpc/service.ts';
import type { Content } from './content.ts';
import type { Images } from './images.ts';
import {
  chainIds,
  type DescriptorJson,
  imageFor,
  descriptorJson,
  isConfig,
  readDocument,
} from './manifest.ts';
import { configOf, objectOf, type ImageDocument, type RunConfig, textsOf } from '../oci/image-config.ts';
import type { Labels } from './namespace.ts';
import type { parsePlatform } from '../oci/platform.ts';

/** An image for one platform: what its name leads to. */
export interface RunnableImage {
  readonly name: string;
  readonly labels: Labels;
  /** Where its configuration is. */
  readonly configDigest: string;
  readonly config: RunConfig;
  readonly layers: readonly DescriptorJson[];
  /** Of the uncompressed layers, the lowest first. */
  readonly diffIds: readonly string[];
  /** The names of the snapshots that the layers become. */
  readonly chainIds: readonly string[];
}

/** By this label of a container clients know with what it is to be stopped: containerd's. */
export const STOP_SIGNAL_LABEL = 'io.containerd.image.config.stop-signal';

/**
 * Follows an image's name to its configuration and its layers.
 *
 * @param platform the one to choose where there are several; what has a single one is taken as it is
 * @throws RpcError NotFound for an image, a platform or content that is not there; InvalidArgument for what cannot be run
 */
export async function runnableImage(
  { images, content }: { readonly images: Images; readonly content: Content },
  name: string,
  platform: ReturnType<typeof parsePlatform>,
  options?: CallOptions,
): Promise<RunnableImage> {
  const { labels, target } = await images.get(name, options);
  try {
    const { config: at, layers } = (await imageFor(content, descriptorJson(target), platform, options))
      .manifest;
    if (!isConfig(at.mediaType)) throw invalidArgument(`its configuration is of type ${at.mediaType}`);
    const document = await readDocument<ImageDocument>(content, at.digest, options);
    const diffIds = textsOf(objectOf(document['rootfs'])['diff_ids']);
    if (diffIds.length !== layers.length) {
      throw invalidArgument(`it has ${layers.length} layers, its configuration tells of ${diffIds.length}`);
    }
    const config = configOf(document['config']);
    return { name, labels, configDigest: at.digest, config, layers, diffIds, chainIds: chainIds(diffIds) };
  } catch (error) {
    const message = `image ${name} cannot be run: ${messageOf(error)}`;
    if (isCode(error, Code.NotFound)) throw notFound(message, error);
    if (isCode(error, Code.InvalidArgument)) throw invalidArgument(message, error);
    throw error;
  }
}
