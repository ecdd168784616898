/**
 * The images that are pulled and imported. Their files are cut out of Node's own program, machine code and tables and text, which
 * is what real layers are made of and compresses as they do; where they are cut is the same in every run.
 */
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream, readFileSync, statSync, writeFileSync } from 'node:fs';
import { mkdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { pack } from 'tar-stream';

/** An image as an OCI layout on disk, ready to be served or packed. */
export interface LayoutImage {
  readonly name: string;
  readonly what: string;
  /** An archive of the layout, for `ctr image import`. */
  readonly archive: string;
  readonly manifest: Piece;
  readonly config: Piece;
  readonly layers: readonly Piece[];
}

export interface Piece {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly path: string;
}

/** The sizes of a layer's files. */
type Sizes = Generator<number>;

const OCI = 'application/vnd.oci.image';
const MIB = 1024 * 1024;
const FILES_IN_FOLDER = 50;

/** Numbers from 0 to 1 that look random and never change (a linear congruential generator, Numerical Recipes' constants). */
function* numbers(seed: number): Generator<number, never> {
  for (let state = seed; ;) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    yield state / 2 ** 32;
  }
}

/** One layer of 300 MiB in files of megabytes, as a database or a compiler has. */
function* large(): Sizes {
  const random = numbers(1);
  for (let left = 300 * MIB; left > 0;) {
    const size = Math.min(left, Math.round((0.1 + random.next().value * 8) * MIB));
    left -= size;
    yield size;
  }
}

/** 2,500 files of 2 KiB in the middle, a few larger, as libraries of scripting languages have. */
function* small(seed: number): Sizes {
  const random = numbers(seed);
  for (let count = 0; count < 2500; count += 1)
    yield Math.round(128 * 2 ** (random.next().value * 5 + random.next().value * 4));
}

const images = {
  large: { what: 'one layer of 300 MiB', layers: [large] },
  small: {
    what: '8 layers, 20,000 small files in all',
    layers: Array.from({ length: 8 }, (_, index) => () => small(index + 2)),
  },
} as const;

export type ImageName = keyof typeof images;

/** Makes the image in a folder of its own below the directory. */
export async function makeImage(directory: string, name: ImageName): Promise<LayoutImage> {
  const { what, layers: kinds } = images[name];
  const folder = join(directory, name);
  await mkdir(join(folder, 'blobs/sha256'), { recursive: true });
  const layers: Piece[] = [];
  const diffIds: string[] = [];
  for (const [index, sizes] of kinds.entries()) {
    const { piece, diffId } = await makeLayer(folder, `usr/lib/part-${index}`, sizes());
    layers.push(piece);
    diffIds.push(diffId);
  }
  const config = put(folder, `${OCI}.config.v1+json`, {
    os: 'linux',
    architecture: { x64: 'amd64' }[process.arch as string] ?? process.arch,
    config: {},
    rootfs: { type: 'layers', diff_ids: diffIds },
  });
  const mediaType = `${OCI}.manifest.v1+json`;
  const manifest = put(folder, mediaType, {
    schemaVersion: 2,
    mediaType,
    config: descriptor(config),
    layers: layers.map(descriptor),
  });
  const archive = join(directory, `${name}.tar`);
  const image = { name, what, archive, manifest, config, layers };
  await packLayout(image);
  return image;
}

const descriptor = ({ mediaType, digest, size }: Piece) => ({ mediaType, digest, size });

function put(folder: string, mediaType: string, document: object): Piece {
  const bytes = Buffer.from(JSON.stringify(document));
  const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
  const path = join(folder, 'blobs/sha256', digest.slice(7));
  writeFileSync(path, bytes);
  return { mediaType, digest, size: bytes.length, path };
}

async function makeLayer(
  folder: string,
  at: string,
  sizes: Sizes,
): Promise<{ piece: Piece; diffId: string }> {
  const path = join(folder, 'layer');
  const [before, after] = [new Digester(), new Digester()];
  const writing = pipeline(layer(at, sizes), before, createGzip(), after, createWriteStream(path));
  await writing;
  const digest = after.digest();
  const target = join(folder, 'blobs/sha256', digest.slice(7));
  await rename(path, target);
  const piece = { mediaType: `${OCI}.layer.v1.tar+gzip`, digest, size: statSync(target).size, path: target };
  return { piece, diffId: before.digest() };
}

function layer(at: string, sizes: Sizes) {
  const archive = pack();
  const program = readFileSync(process.execPath);
  const mtime = new Date('2024-01-01T00:00:00Z');
  const random = numbers(at.length);
  let count = 0;
  const next = (error?: Error | null): void => {
    if (error != null) {
      archive.destroy(error);
      return;
    }
    const { done, value: size } = sizes.next();
    if (done === true) return archive.finalize();
    const start = Math.floor(random.next().value * (program.length - size));
    const name = `${at}/folder-${Math.floor(count / FILES_IN_FOLDER)}/file-${count}`;
    count += 1;
    archive.entry({ name, mode: 0o644, mtime }, program.subarray(start, start + size), next);
  };
  next();
  return archive;
}

/** Digests what flows through. */
class Digester extends Transform {
  readonly #hash = createHash('sha256');

  override _transform(bytes: Buffer, _: string, done: (error: null, bytes: Buffer) => void): void {
    this.#hash.update(bytes);
    done(null, bytes);
  }

  digest(): string {
    return `sha256:${this.#hash.digest('hex')}`;
  }
}

async function packLayout({ name, archive: path, manifest, config, layers }: LayoutImage): Promise<void> {
  const archive = pack();
  const annotations = { 'io.containerd.image.name': `bench/${name}:latest` };
  const index = { schemaVersion: 2, manifests: [{ ...descriptor(manifest), annotations }] };
  const writing = pipeline(archive, createWriteStream(path));
  archive.entry({ name: 'oci-layout' }, JSON.stringify({ imageLayoutVersion: '1.0.0' }));
  archive.entry({ name: 'index.json' }, JSON.stringify(index));
  for (const piece of [manifest, config, ...layers]) {
    const entry = archive.entry({ name: `blobs/sha256/${piece.digest.slice(7)}`, size: piece.size });
    await pipeline(createReadStream(piece.path), entry);
  }
  archive.finalize();
  await writing;
}
