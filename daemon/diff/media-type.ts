import { unimplemented } from '../../ttrpc/errors.ts';
import type { Compression } from './job.ts';

/** The archive inside a layer, as the image specification calls it. */
export const ARCHIVE = 'application/vnd.oci.image.layer.v1.tar';

const LAYERS = new Set([
  ARCHIVE,
  'application/vnd.oci.image.layer.nondistributable.v1.tar',
  'application/vnd.docker.image.rootfs.diff.tar',
  'application/vnd.docker.image.rootfs.diff.tar.gzip',
  'application/vnd.docker.image.rootfs.diff.tar.zstd',
  'application/vnd.docker.image.rootfs.foreign.diff.tar',
  'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
]);

/**
 * Makes sure that blobs of this type can be unpacked. How they are compressed is told by their bytes.
 *
 * @throws RpcError Unimplemented for anything but layers, and for encrypted ones
 */
export function checkLayerType(mediaType: string): void {
  const [base = '', ...suffixes] = mediaType.split('+');
  const isKnown = LAYERS.has(base) && suffixes.every((suffix) => suffix === 'gzip' || suffix === 'zstd');
  if (!isKnown)
    throw unimplemented(`layers of the media type ${JSON.stringify(mediaType)} cannot be unpacked`);
}

/**
 * How a layer of this type is to be compressed; gzip when no type is asked for.
 *
 * @throws RpcError Unimplemented for other types than those of the image specification
 */
export function compressionFor(mediaType: string): Compression {
  switch (mediaType) {
    case ARCHIVE:
      return 'none';
    case `${ARCHIVE}+gzip`:
    case 'application/vnd.docker.image.rootfs.diff.tar.gzip':
      return 'gzip';
    case `${ARCHIVE}+zstd`:
      return 'zstd';
    default:
      throw unimplemented(`layers of the media type ${JSON.stringify(mediaType)} cannot be made`);
  }
}
