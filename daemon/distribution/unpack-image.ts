/** Unpacks an image whose content is there. */
import type { Descriptor } from '../../proto/gen/containerd/types/descriptor.ts';
import { notFound } from '../../ttrpc/errors.ts';
import { parseDigest } from '../content/digest.ts';
import type { Distribution, Session } from './distribution.ts';
import { readChildren } from './graph.ts';
import { isConfig, isIndex } from './media-types.ts';
import { hostPlatform, platformText, select } from '../../oci/platform.ts';
import type { Unpack } from './pull.ts';
import { diffIdsOf, unpack } from './unpack.ts';

const MAX_CONFIG = 8 << 20;
const ready = (): Promise<void> => Promise.resolve();

/** @throws RpcError NotFound when it has nothing for the platform; as `unpack` */
export async function unpackImage(
  distribution: Distribution,
  session: Session,
  image: Descriptor,
  { snapshotter, target = hostPlatform() }: Unpack,
): Promise<void> {
  const { content, differs, snapshotters, unpacking } = distribution;
  const { namespace } = session;
  const children = await readChildren(content, namespace, image);
  if (isIndex(image.mediaType)) {
    const [best] = select(children, ({ platform }) => platform, [target], 1);
    if (best === undefined)
      throw notFound(`no match for platform ${platformText(target)} in ${image.digest}: not found`);
    return unpackImage(distribution, session, best.descriptor, { snapshotter, target });
  }
  const config = children.find(({ role }) => role === 'config')?.descriptor;
  if (config === undefined || !isConfig(config.mediaType)) return;
  const layers = children
    .filter(({ role }) => role === 'layer')
    .map(({ descriptor }) => ({ descriptor, ready }));
  const bytes = await content.read(namespace, parseDigest(config.digest), MAX_CONFIG);
  const differ = differs.onto(snapshotter);
  const shop = { content, differ, unpacking, snapshotter: snapshotters.get(snapshotter), ...session };
  await unpack(shop, config, diffIdsOf(config.digest, bytes), layers);
}
