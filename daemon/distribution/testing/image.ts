/** Images made by hand: a program, files, layers. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { buffer } from 'node:stream/consumers';
import { gzipSync } from 'node:zlib';
import { pack } from 'tar-stream';
import {
  DOCKER_CONFIG,
  DOCKER_MANIFEST,
  OCI_CONFIG,
  OCI_INDEX,
  OCI_LAYER,
  OCI_MANIFEST,
} from '../media-types.ts';

export interface Piece {
  readonly mediaType: string;
  readonly bytes: Buffer;
  readonly digest: string;
}

export interface MadeImage {
  readonly manifest: Piece;
  readonly config: Piece;
  readonly layers: readonly Piece[];
  readonly diffIds: readonly string[];
}

export function digestOf(bytes: Buffer): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

export function piece(mediaType: string, bytes: Buffer): Piece {
  return { mediaType, bytes, digest: digestOf(bytes) };
}

export function jsonPiece(mediaType: string, document: object): Piece {
  return piece(mediaType, Buffer.from(JSON.stringify(document)));
}

export function descriptorOf({ mediaType, bytes, digest }: Piece): {
  mediaType: string;
  digest: string;
  size: number;
} {
  return { mediaType, digest, size: bytes.length };
}

/** The same for all files, so that what is made twice is the same. */
const MTIME = new Date('2026-01-01T00:00:00Z');

/** An archive with these files. */
export async function archive(files: { readonly [name: string]: Buffer | string }): Promise<Buffer> {
  const archive = pack();
  for (const [name, content] of Object.entries(files))
    archive.entry({ name, mode: 0o755, mtime: MTIME }, content);
  archive.finalize();
  return buffer(archive);
}

export interface MakeOptions {
  /** Docker's media types instead of OCI's. */
  readonly docker?: boolean;
  readonly architecture?: string;
  /** Layers as plain archives, not compressed. */
  readonly plain?: boolean;
  /** The `config` of the image's configuration: User, Env, Entrypoint, Cmd … */
  readonly config?: object;
}

/** Made of layers, the lowest first: each the files it has, or an archive. */
export async function makeImage(
  layers: readonly ({ readonly [name: string]: Buffer | string } | Buffer)[],
  {
    docker = false,
    plain = false,
    architecture = 'amd64',
    config: command = { Cmd: ['/bin/busybox', 'sh'] },
  }: MakeOptions = {},
): Promise<MadeImage> {
  const archives = await Promise.all(
    layers.map(async (layer) => (Buffer.isBuffer(layer) ? layer : await archive(layer))),
  );
  const layerType = docker ? 'application/vnd.docker.image.rootfs.diff.tar' : OCI_LAYER;
  const pieces = archives.map((bytes) =>
    plain ? piece(layerType, bytes) : piece(`${layerType}${docker ? '.' : '+'}gzip`, gzipSync(bytes)),
  );
  const diffIds = archives.map(digestOf);
  const config = jsonPiece(docker ? DOCKER_CONFIG : OCI_CONFIG, {
    os: 'linux',
    architecture,
    config: command,
    rootfs: { type: 'layers', diff_ids: diffIds },
  });
  const mediaType = docker ? DOCKER_MANIFEST : OCI_MANIFEST;
  const manifest = jsonPiece(mediaType, {
    schemaVersion: 2,
    mediaType,
    config: descriptorOf(config),
    layers: pieces.map(descriptorOf),
  });
  return { manifest, config, layers: pieces, diffIds };
}

/** Of a program and a file above it. */
export function busyboxImage(text = 'moored', options: MakeOptions = {}): Promise<MadeImage> {
  const program = readFileSync('/bin/busybox');
  return makeImage([{ 'bin/busybox': program }, { 'etc/greeting': text }], options);
}

export function makeIndex(images: readonly (readonly [platform: object, image: MadeImage])[]): Piece {
  return jsonPiece(OCI_INDEX, {
    schemaVersion: 2,
    mediaType: OCI_INDEX,
    manifests: images.map(([platform, { manifest }]) => ({ ...descriptorOf(manifest), platform })),
  });
}
