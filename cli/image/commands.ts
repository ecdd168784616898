/** `moor images`, with ctr's verbs and flags. What a verb does is loaded when it is used. */
import { type Command, InvalidArgumentError } from 'commander';
import { collect } from '../labels.ts';
import { addRegistryFlags } from '../registry-flags.ts';
import { withClient } from '../session.ts';
import { formatOption } from '../table.ts';
import type { CheckFlags, LabelFlags, ListFlags, RemoveFlags, TagFlags, UsageFlags } from './listing.ts';
import type { ConvertFlags } from './convert.ts';
import type { ExportFlags, ImportFlags } from './archive.ts';
import type { MountFlags, UnmountFlags } from './mount.ts';
import type { PullFlags } from './pull.ts';
import type { PushFlags } from './push.ts';

export function addImages(program: Command): void {
  const images = program
    .command('images')
    .aliases(['image', 'i'])
    .description('images: from a registry to a root filesystem and back');
  addTransfers(images);
  addRecords(images);
  addMounts(images);
  images
    .command('convert')
    .description('make an image with other layers or media types of one that is here')
    .argument('<source>')
    .argument('<target>', 'its name')
    .option('--uncompress', 'layers as they are inside')
    .option('--zstd', 'compress layers with zstd')
    .option('--gzip', 'compress layers with gzip')
    .option('--level <number>', 'how hard to compress (default: as the format has it)', number)
    .option('--oci', 'media types of OCI in place of Docker’s')
    .option('--platform <platform>', 'which images of an index (default: this host’s)', collect)
    .option('--all-platforms', 'all images of an index')
    .action((source: string, target: string, flags: ConvertFlags, command: Command) =>
      withClient(command, async (session) =>
        (await import('./convert.ts')).convert(session, source, target, flags),
      ),
    );
}

function addTransfers(images: Command): void {
  addSnapshotter(
    addPlatforms(addRegistryFlags(images.command('pull').description('pull an image from a registry'))),
  )
    .argument('<reference>', 'such as docker.io/library/busybox:latest')
    .option('--label <key=value>', 'labels of the image', collect)
    .option('--all-metadata', 'also manifests and configurations of other platforms')
    .option('--no-unpack', 'make no snapshots of the layers')
    .option('--print-chainid', 'print the snapshot that the image was unpacked to')
    .option('--max-concurrent-downloads <number>', 'how many layers at a time', number)
    .option('-q, --quiet', 'show no progress, and print the name of the image')
    .action((reference: string, flags: PullFlags, command: Command) =>
      withClient(command, async (session) => (await import('./pull.ts')).pull(session, reference, flags)),
    );
  addRegistryFlags(images.command('push').description('push an image to a registry'))
    .argument('<reference>', 'where to')
    .argument('[local]', 'the image’s name here (default: the same)')
    .option('--manifest <digest>', 'push what this manifest names, in place of an image')
    .option(
      '--manifest-type <type>',
      'the manifest’s media type',
      'application/vnd.oci.image.manifest.v1+json',
    )
    .option('--platform <platform>', 'which images of an index (default: all that are here)', collect)
    .option('--max-concurrent-uploaded-layers <number>', 'how many layers at a time', number)
    .option('--allow-non-distributable-blobs', 'push also layers that are marked as not to be given away')
    .option('-q, --quiet', 'show no progress, and print the name of the image')
    .action((reference: string, local: string | undefined, flags: PushFlags, command: Command) =>
      withClient(command, async (session) =>
        (await import('./push.ts')).push(session, reference, local, flags),
      ),
    );
  addSnapshotter(addPlatforms(images.command('import').description('store the images of an archive')))
    .argument('<file>', '- for stdin')
    .option('--base-name <name>', 'only images of this name; it goes before names that are only tags')
    .option('--digests', 'also name images by their digests')
    .option('--skip-digest-for-named', 'with --digests: not those that have a name')
    .option('--index-name <name>', 'keep the archive’s list of images as an image of this name')
    .option('--label <key=value>', 'labels of the images', collect)
    .option('--no-unpack', 'make no snapshots of the layers')
    .option('--compress-blobs', 'compress layers that are not, of archives in Docker’s format')
    .option('-q, --quiet', 'show no progress, and print the names of the images')
    .action((file: string, flags: ImportFlags, command: Command) =>
      withClient(command, async (session) =>
        (await import('./archive.ts')).importArchive(session, file, flags),
      ),
    );
  addPlatforms(
    images.command('export').description('write an archive of images, for others and for docker load'),
  )
    .argument('<file>', '- for stdout')
    .argument('<image...>')
    .option('--skip-manifest-json', 'not what docker load of old needs')
    .option('--skip-non-distributable', 'no layers that are marked as not to be given away')
    .action((file: string, names: string[], flags: ExportFlags, command: Command) =>
      withClient(command, async (session) =>
        (await import('./archive.ts')).exportArchive(session, file, names, flags),
      ),
    );
}

function addRecords(images: Command): void {
  images
    .command('list')
    .alias('ls')
    .description('list images')
    .argument('[filter...]', 'such as name~=busybox')
    .option('-q, --quiet', 'print only the names')
    .addOption(formatOption())
    .action((filters: string[], flags: ListFlags, command: Command) =>
      withClient(command, async (session) => (await import('./listing.ts')).list(session, filters, flags)),
    );
  addSnapshotter(images.command('check').description('see whether all of an image is here'))
    .argument('[filter...]')
    .option('-q, --quiet', 'print only the names of those that are complete')
    .addOption(formatOption())
    .action((filters: string[], flags: CheckFlags, command: Command) =>
      withClient(command, async (session) => (await import('./listing.ts')).check(session, filters, flags)),
    );
  addSnapshotter(images.command('usage').description('what an image takes, as content and unpacked'))
    .argument('<image...>')
    .option('--platform <platform>', 'of which image of an index (default: this host’s)')
    .addOption(formatOption())
    .action((names: string[], flags: UsageFlags, command: Command) =>
      withClient(command, async (session) => (await import('./listing.ts')).usage(session, names, flags)),
    );
  images
    .command('delete')
    .aliases(['del', 'remove', 'rm'])
    .description('remove names of images, and what nothing else holds')
    .argument('<image...>')
    .option('--sync', 'return when what they held has been collected')
    .action((names: string[], flags: RemoveFlags, command: Command) =>
      withClient(command, async (session) => (await import('./listing.ts')).remove(session, names, flags)),
    );
  images
    .command('tag')
    .description('give an image more names')
    .argument('<image>')
    .argument('<name...>')
    .option('--force', 'also names that other images have')
    .action((source: string, names: string[], flags: TagFlags, command: Command) =>
      withClient(command, async (session) =>
        (await import('./listing.ts')).tag(session, source, names, flags),
      ),
    );
  images
    .command('label')
    .description('set labels of an image; an empty value clears one')
    .argument('<image>')
    .argument('[key=value...]')
    .option('-r, --replace-all', 'leave no other labels')
    .action((name: string, pairs: string[], flags: LabelFlags, command: Command) =>
      withClient(command, async (session) =>
        (await import('./listing.ts')).label(session, name, pairs, flags),
      ),
    );
}

function addMounts(images: Command): void {
  addSnapshotter(images.command('mount').description('mount an image’s root filesystem'))
    .argument('<image>')
    .argument('<directory>')
    .option('--rw', 'to be written')
    .option('--platform <platform>', 'which image of an index (default: this host’s)')
    .option('--label <key=value>', 'labels of the snapshot', collect)
    .action((name: string, target: string, flags: MountFlags, command: Command) =>
      withClient(command, async (session) =>
        (await import('./mount.ts')).mountImage(session, name, target, flags),
      ),
    );
  addSnapshotter(images.command('unmount').description('unmount what mount has mounted'))
    .argument('<directory>')
    .option('--rm', 'remove the snapshot, too')
    .action((target: string, flags: UnmountFlags, command: Command) =>
      withClient(command, async (session) =>
        (await import('./mount.ts')).unmountImage(session, target, flags),
      ),
    );
}

export function addSnapshotter(command: Command): Command {
  return command.option('--snapshotter <name>', 'also CONTAINERD_SNAPSHOTTER (default: the namespace’s)');
}

export function addPlatforms(command: Command): Command {
  return command
    .option('--platform <platform>', 'which images of an index (default: this host’s)', collect)
    .option('--all-platforms', 'all images of an index');
}

export function number(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0) throw new InvalidArgumentError('Give a number.');
  return value;
}
