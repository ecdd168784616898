/** The media types of what images are made of, OCI's and Docker's. */

export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
export const OCI_CONFIG = 'application/vnd.oci.image.config.v1+json';
export const OCI_LAYER = 'application/vnd.oci.image.layer.v1.tar';
export const DOCKER_LIST = 'application/vnd.docker.distribution.manifest.list.v2+json';
export const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';
export const DOCKER_CONFIG = 'application/vnd.docker.container.image.v1+json';

export const ACCEPT = [DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX, '*/*'].join(', ');

export function isIndex(mediaType: string): boolean {
  return mediaType === OCI_INDEX || mediaType === DOCKER_LIST;
}

export function isManifest(mediaType: string): boolean {
  return mediaType === OCI_MANIFEST || mediaType === DOCKER_MANIFEST;
}

/** What registries serve below `manifests/`; everything else is a blob. */
export function isManifestKind(mediaType: string): boolean {
  return isIndex(mediaType) || isManifest(mediaType);
}

export function isConfig(mediaType: string): boolean {
  return mediaType === OCI_CONFIG || mediaType === DOCKER_CONFIG;
}

export function isLayer(mediaType: string): boolean {
  return (
    mediaType.startsWith('application/vnd.oci.image.layer.') ||
    mediaType.startsWith('application/vnd.docker.image.rootfs.')
  );
}

/** Layers that only their owner may give away. */
export function isNonDistributable(mediaType: string): boolean {
  return mediaType.includes('.nondistributable.') || mediaType.includes('.foreign.');
}

/** By which clients know what is under way: `layer-sha256:…` (containerd, remotes.MakeRefKey). */
export function refKeyOf({
  mediaType,
  digest,
}: {
  readonly mediaType: string;
  readonly digest: string;
}): string {
  if (isIndex(mediaType)) return `index-${digest}`;
  if (isManifest(mediaType)) return `manifest-${digest}`;
  if (isConfig(mediaType)) return `config-${digest}`;
  return isLayer(mediaType) ? `layer-${digest}` : `unknown-${digest}`;
}
