/** Archives of images, in and out. */
import { createReadStream } from 'node:fs';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { once } from 'node:events';
import type { ImportedName, Progress } from '../../client/client.ts';
import { Failure } from '../failure.ts';
import { interruptible } from '../interrupt.ts';
import { showProgress } from '../progress.ts';
import type { Session } from '../session.ts';
import {
  labelsOf,
  type PlatformFlags,
  platformsOf,
  type SnapshotterFlags,
  snapshotterOf,
} from './platforms.ts';

export interface ImportFlags extends PlatformFlags, SnapshotterFlags {
  readonly baseName?: string;
  readonly digests?: boolean;
  readonly skipDigestForNamed?: boolean;
  readonly indexName?: string;
  readonly label?: readonly string[];
  readonly unpack: boolean;
  readonly compressBlobs?: boolean;
  readonly quiet?: boolean;
}

export async function importArchive(session: Session, file: string, flags: ImportFlags): Promise<void> {
  const { client } = session;
  const { quiet = false, compressBlobs = false, indexName = '' } = flags;
  const platforms = platformsOf(session, flags);
  const names = [namesOf(flags)];
  const bytes = file === '-' ? process.stdin : await opened(file);
  using display = showProgress(quiet ? undefined : process.stdout, { title: file === '-' ? '' : file });
  const imported = await interruptible(session, 'nothing has been named', (call) =>
    client.transfers.import(bytes, {
      ...call,
      names,
      labels: labelsOf(flags.label),
      indexName,
      ...(platforms !== undefined && { platforms }),
      compress: compressBlobs,
      unpack: flags.unpack,
      snapshotter: snapshotterOf(flags),
      onProgress: (progress: Progress) => display.update(progress),
    }),
  );
  if (!quiet) display.finish();
  for (const name of imported) console.log(quiet ? name : `imported ${name}`);
}

async function opened(file: string): Promise<AsyncIterable<Buffer>> {
  const stream = createReadStream(file, { highWaterMark: 256 << 10 });
  // A file that is not there is told before anything is begun.
  await once(stream, 'open');
  return stream as AsyncIterable<Buffer>;
}

/** ctr's rules: names in the archive are taken as they are, or only those with the given beginning. */
function namesOf({ baseName, digests = false, skipDigestForNamed = false }: ImportFlags): ImportedName {
  if (skipDigestForNamed && !digests) throw new Failure('--skip-digest-for-named goes with --digests only');
  const name = baseName ?? `import-${new Date().toISOString().slice(0, 10)}`;
  return {
    name,
    isPrefix: true,
    allowOverwrite: baseName === undefined,
    addDigest: digests,
    skipNamedDigest: skipDigestForNamed,
  };
}

export interface ExportFlags extends PlatformFlags {
  readonly skipManifestJson?: boolean;
  readonly skipNonDistributable?: boolean;
}

export async function exportArchive(
  session: Session,
  file: string,
  names: readonly string[],
  flags: ExportFlags,
): Promise<void> {
  const { client } = session;
  if (file === '-' && process.stdout.isTTY)
    throw new Failure('an archive is not for a terminal', 'name a file, or send stdout to one');
  const platforms = platformsOf(session, flags);
  await using out = file === '-' ? new Stdout() : await OutputFile.open(file);
  await interruptible(session, 'nothing has been written', (call) =>
    client.transfers.export(names, (bytes) => out.write(bytes), {
      ...call,
      ...(platforms !== undefined && { platforms }),
      dockerManifest: flags.skipManifestJson !== true,
      nonDistributable: flags.skipNonDistributable !== true,
    }),
  );
  await out.keep();
}

interface Output extends AsyncDisposable {
  write(bytes: Buffer): Promise<void>;
  keep(): Promise<void>;
}

class Stdout implements Output {
  async write(bytes: Buffer): Promise<void> {
    if (!process.stdout.write(bytes)) await once(process.stdout, 'drain');
  }

  keep(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    process.stdout.write('', () => resolve());
    return promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

/** A file that is removed again unless it has been written to its end. */
class OutputFile implements Output {
  readonly #path: string;
  readonly #file: FileHandle;
  #isKept = false;

  private constructor(path: string, file: FileHandle) {
    this.#path = path;
    this.#file = file;
  }

  static async open(path: string): Promise<OutputFile> {
    return new OutputFile(path, await open(path, 'w'));
  }

  async write(bytes: Buffer): Promise<void> {
    await this.#file.writeFile(bytes);
  }

  keep(): Promise<void> {
    this.#isKept = true;
    return Promise.resolve();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const isRegular = (await this.#file.stat()).isFile();
    await this.#file.close();
    if (!this.#isKept && isRegular) await rm(this.#path, { force: true });
  }
}
