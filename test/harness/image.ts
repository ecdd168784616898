/** Images for tests, as the archives other tools write: OCI layouts, and what `docker save` wrote before and since. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import {
  type MadeImage,
  type MakeOptions,
  type Piece,
  descriptorOf,
  digestOf,
  makeImage,
  makeIndex,
} from '../../daemon/distribution/testing/image.ts';
import { sharedRootfs } from './rootfs.ts';

export { descriptorOf, digestOf, makeImage, makeIndex, type MadeImage, type MakeOptions, type Piece };

/** An archive of a directory as it is: owners by number, xattrs, hard links, devices. */
export function archiveOf(directory: string): Buffer {
  // Without the time of the last reading, which the making of an archive is: two of one directory are the same.
  const times = '--pax-option=delete=atime,delete=ctime';
  const format = ['--format=pax', times, '--xattrs', '--xattrs-include=*', '--numeric-owner', '--sort=name'];
  return execFileSync('tar', [...format, '-C', directory, '-cf', '-', '.'], { maxBuffer: 1 << 30 });
}

/** The options of an image that can run. */
export interface BusyboxOptions extends MakeOptions {
  /** More layers above busybox, the lowest first: the files of each. */
  readonly above?: readonly { readonly [name: string]: Buffer | string }[];
}

/** An image with busybox's applets in /bin, and `/etc/passwd` with root (0), a sailor (1000, group crew 1001) and nobody else. */
export async function busyboxImage({ above = [], ...options }: BusyboxOptions = {}): Promise<MadeImage> {
  const people = {
    'etc/passwd': 'root:x:0:0:root:/root:/bin/sh\nsailor:x:1000:1001:sailor:/tmp:/bin/sh\n',
    'etc/group': 'root:x:0:\ncrew:x:1001:\nbilge:x:1002:sailor\n',
  };
  const config = { Cmd: ['sh'], Env: ['PATH=/bin'] };
  return makeImage([archiveOf(sharedRootfs()), people, ...above], { config, ...options });
}

/** The images of one name, each for an `os/architecture`. */
export interface MultiPlatform {
  readonly index: Piece;
  readonly images: readonly MadeImage[];
}

/** One name for several architectures. */
export function multiPlatform(images: { readonly [architecture: string]: MadeImage }): MultiPlatform {
  const entries = Object.entries(images);
  const index = makeIndex(entries.map(([architecture, image]) => [{ os: 'linux', architecture }, image]));
  return { index, images: Object.values(images) };
}

/** Every blob of the image, the manifest or index among them. */
export function piecesOf(image: MadeImage | MultiPlatform): Piece[] {
  if ('index' in image) return [image.index, ...image.images.flatMap(piecesOf)];
  return [image.manifest, image.config, ...image.layers];
}

/** What the name of the image refers to. */
export function targetOf(image: MadeImage | MultiPlatform): Piece {
  return 'index' in image ? image.index : image.manifest;
}

/** An image with the names it has in an archive; a name without a registry is a tag as OCI layouts have it. */
export type Named = readonly [names: readonly string[], image: MadeImage | MultiPlatform];

/** Writes an OCI layout into a directory. */
export function writeLayout(directory: string, ...images: readonly Named[]): void {
  const blobs = join(directory, 'blobs/sha256');
  mkdirSync(blobs, { recursive: true });
  for (const [, image] of images)
    for (const { digest, bytes } of piecesOf(image)) writeFileSync(join(blobs, digest.slice(7)), bytes);
  const manifests = images.flatMap(([names, image]) => {
    const target = descriptorOf(targetOf(image));
    if (names.length === 0) return [target];
    return names.map((name) => ({ ...target, annotations: annotationsOf(name) }));
  });
  writeFileSync(join(directory, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests }));
  writeFileSync(join(directory, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }));
}

/** Writes an OCI archive and returns its path. */
export function ociArchive(file: string, ...images: readonly Named[]): string {
  return packed(file, (directory) => writeLayout(directory, ...images));
}

/** Writes what `docker save` of Docker 1.10 and later writes: a manifest.json, and an archive for each layer. */
export function dockerArchive(
  file: string,
  ...images: readonly (readonly [tags: readonly string[], image: MadeImage])[]
): string {
  return packed(file, (directory) => {
    const manifest = images.map(([tags, { config, layers }]) => {
      const configName = `${config.digest.slice(7)}.json`;
      writeFileSync(join(directory, configName), config.bytes);
      const names = layers.map(({ digest, bytes }) => {
        writeFileSync(join(directory, `${digest.slice(7)}.tar`), bytes);
        return `${digest.slice(7)}.tar`;
      });
      return { Config: configName, RepoTags: tags.length === 0 ? null : tags, Layers: names };
    });
    writeFileSync(join(directory, 'manifest.json'), JSON.stringify(manifest));
  });
}

/**
 * Writes what `docker save` wrote for many years: a folder for each layer with `VERSION`, `json` and `layer.tar`, the old
 * `repositories` file, and a symbolic link in place of a layer that is there already.
 */
export function legacyDockerArchive(
  file: string,
  ...images: readonly (readonly [tags: readonly string[], image: MadeImage])[]
): string {
  return packed(file, (directory) => {
    const written = new Map<string, string>();
    const repositories: Record<string, Record<string, string>> = {};
    const manifest = images.map(([tags, { config, layers }]) => {
      const configName = `${config.digest.slice(7)}.json`;
      writeFileSync(join(directory, configName), config.bytes);
      let parent: string | undefined;
      const names = layers.map(({ digest, bytes }) => {
        const id = digestOf(Buffer.from(`${parent} ${digest} ${config.digest}`)).slice(7);
        const folder = join(directory, id);
        mkdirSync(folder);
        writeFileSync(join(folder, 'VERSION'), '1.0');
        writeFileSync(join(folder, 'json'), JSON.stringify({ id, ...(parent !== undefined && { parent }) }));
        const first = written.get(digest);
        if (first === undefined) writeFileSync(join(folder, 'layer.tar'), bytes);
        else symlinkSync(`../${first}/layer.tar`, join(folder, 'layer.tar'));
        written.set(digest, first ?? id);
        parent = id;
        return `${id}/layer.tar`;
      });
      for (const tag of tags) {
        const colon = tag.lastIndexOf(':');
        (repositories[tag.slice(0, colon)] ??= {})[tag.slice(colon + 1)] = parent ?? '';
      }
      return { Config: configName, RepoTags: tags, Layers: names };
    });
    writeFileSync(join(directory, 'manifest.json'), JSON.stringify(manifest));
    writeFileSync(join(directory, 'repositories'), JSON.stringify(repositories));
  });
}

function annotationsOf(name: string): Record<string, string> {
  if (!name.includes('/')) return { 'org.opencontainers.image.ref.name': name };
  const tag = name.slice(name.lastIndexOf(':') + 1);
  return { 'io.containerd.image.name': name, 'org.opencontainers.image.ref.name': tag };
}

function packed(file: string, write: (directory: string) => void): string {
  const directory = mkdtempSync(`${dirname(file)}/pack-`);
  try {
    write(directory);
    // Named without `./`, as the tools do: containerd follows symbolic links only then.
    execFileSync('tar', ['-cf', file, '-C', directory, ...readdirSync(directory)]);
  } finally {
    rmSync(directory, { recursive: true });
  }
  return file;
}
