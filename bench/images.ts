/** Images from a registry and from an archive to a root file system. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { messageAny } from '../daemon/distribution/any.ts';
import { DebianRegistry } from '../daemon/distribution/testing/registries.ts';
import { TransferDefinition } from '../proto/gen/containerd/services/transfer.ts';
import { ImageStore, OCIRegistry } from '../proto/gen/containerd/types/transfer.ts';
import { forgetPeak, peakMemory } from './account.ts';
import { type ImageName, makeImage, type LayoutImage } from './made-image.ts';
import type { Figure, Measure } from './measure.ts';
import type { Side } from './side.ts';

const MIB = 1024 * 1024;
const MINUTES = 60_000;

/** A registry with both images in it, made when first asked for. */
export class Gallery implements AsyncDisposable {
  readonly #directory = mkdtempSync('/tmp/moor-bench-');
  readonly #images = new Map<ImageName, Promise<LayoutImage>>();
  #registry: Promise<DebianRegistry> | undefined;

  async host(): Promise<string> {
    this.#registry ??= DebianRegistry.start();
    return (await this.#registry).host;
  }

  image(name: ImageName): Promise<LayoutImage> {
    const known = this.#images.get(name);
    if (known !== undefined) return known;
    const making = this.#make(name);
    this.#images.set(name, making);
    return making;
  }

  async #make(name: ImageName): Promise<LayoutImage> {
    process.stderr.write(`making the image “${name}” …\n`);
    const image = await makeImage(this.#directory, name);
    await this.host();
    const registry = await this.#registry!;
    const load = ({ path, digest, mediaType }: LayoutImage['manifest']) => ({
      bytes: readFileSync(path),
      digest,
      mediaType,
    });
    for (const piece of [image.config, ...image.layers]) await registry.putBlob(name, load(piece));
    await registry.putManifest(name, 'latest', load(image.manifest));
    return image;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await (await this.#registry)?.[Symbol.asyncDispose]();
    rmSync(this.#directory, { recursive: true });
  }
}

interface Cost {
  readonly milliseconds: number;
  readonly processor: number;
  /** MiB of the daemon's own process. */
  readonly daemon: number;
  /** MiB of everything together, files not counted. */
  readonly all: number;
}

async function costOf({ account, daemon }: Side, action: () => Promise<void>): Promise<Cost> {
  // What earlier samples have left to be written would be paid for by this one.
  execFileSync('sync');
  forgetPeak(daemon.pid);
  const before = account.processorTime();
  const began = performance.now();
  let milliseconds = 0;
  const all = await account.peakDuring(async () => {
    await action();
    milliseconds = performance.now() - began;
  });
  const processor = account.processorTime() - before;
  return { milliseconds, processor, daemon: peakMemory(daemon.pid) / MIB, all: all / MIB };
}

/** Pulls and unpacks on the daemon's side, as `moor image pull` does. */
async function pullByDaemon({ daemon, ctr }: Side, reference: string): Promise<void> {
  using connection = daemon.connect();
  const transfers = connection.service(TransferDefinition, ctr.namespace);
  const platform = { os: 'linux', architecture: { x64: 'amd64' }[process.arch as string] ?? process.arch };
  const source = messageAny('containerd.types.transfer.OCIRegistry', OCIRegistry, { reference });
  const destination = messageAny('containerd.types.transfer.ImageStore', ImageStore, {
    name: reference,
    platforms: [platform],
    unpacks: [{ platform, snapshotter: 'overlayfs' }],
  });
  await transfers.transfer({ source, destination }, { timeout: 5 * MINUTES });
}

const figuresOf = (name: string, how: string): Figure[] => [
  { name, what: how, unit: 'ms' },
  { name: `${name}-cpu`, what: '… processor time of daemon, workers and client', unit: 'ms' },
  { name: `${name}-daemon`, what: '… most memory of the daemon', unit: 'MiB' },
  { name: `${name}-all`, what: '… most memory of daemon, workers and client, without files', unit: 'MiB' },
];
const valuesOf = ({ milliseconds, processor, daemon, all }: Cost) => [milliseconds, processor, daemon, all];

/** containerd 1.6 leaves pulling to its client, so that both of Moor's ways stand beside the same. */
const pull = (gallery: Gallery, name: ImageName, what: string): Measure => ({
  name: `pull-${name}`,
  topic: 'Images',
  figures: [
    ...figuresOf(`pull-${name}-ctr`, `ctr image pull of ${what}`),
    ...figuresOf(`pull-${name}-own`, `pull by Moor’s daemon beside ctr image pull on containerd, ${what}`),
  ],
  rounds: { full: 3, quick: 1 },
  prepare: async () => void (await gallery.image(name)),
  sample: async (side) => {
    const reference = `${await gallery.host()}/${name}:latest`;
    const byClient = await costOf(side, () => side.counted(['images', 'pull', '--plain-http', reference]));
    await side.timed(['images', 'rm', '--sync', reference]);
    if (side.daemon.peer === 'containerd') return [...valuesOf(byClient), ...valuesOf(byClient)];
    const byDaemon = await costOf(side, () => pullByDaemon(side, reference));
    await side.timed(['images', 'rm', '--sync', reference]);
    return [...valuesOf(byClient), ...valuesOf(byDaemon)];
  },
});

const load = (gallery: Gallery, name: ImageName, what: string): Measure => ({
  name: `import-${name}`,
  topic: 'Images',
  figures: figuresOf(`import-${name}`, `ctr image import of ${what}`),
  rounds: { full: 3, quick: 1 },
  prepare: async () => void (await gallery.image(name)),
  sample: async (side) => {
    const { archive } = await gallery.image(name);
    const cost = await costOf(side, () => side.counted(['images', 'import', archive]));
    await side.timed(['images', 'rm', '--sync', `bench/${name}:latest`]);
    return valuesOf(cost);
  },
});

/** A blob as its client reads it, 32 KiB at a time. */
const get = (gallery: Gallery): Measure => ({
  name: 'content-get',
  topic: 'Images',
  figures: figuresOf('content-get', 'ctr content get of the layer of 300 MiB'),
  rounds: { full: 3, quick: 1 },
  prepare: async (side) => {
    const { archive } = await gallery.image('large');
    await side.timed(['images', 'import', '--no-unpack', archive]);
  },
  sample: async (side) => {
    const [layer] = (await gallery.image('large')).layers;
    return valuesOf(await costOf(side, () => side.counted(['content', 'get', layer!.digest])));
  },
  tidy: async (side) => void (await side.timed(['images', 'rm', '--sync', 'bench/large:latest'])),
});

export const images = (gallery: Gallery): readonly Measure[] => [
  pull(gallery, 'large', 'one layer of 300 MiB'),
  pull(gallery, 'small', '8 layers with 20,000 files'),
  load(gallery, 'large', 'one layer of 300 MiB'),
  load(gallery, 'small', '8 layers with 20,000 files'),
  get(gallery),
];
