/** `moor content`, with ctr's verbs and flags. What a verb does is loaded when it is used. */
import type { Command } from 'commander';
import { parseDuration } from '../duration.ts';
import { addPlatforms, number } from '../image/commands.ts';
import { collect } from '../labels.ts';
import { addRegistryFlags, type RegistryFlags } from '../registry-flags.ts';
import { withClient } from '../session.ts';
import { formatOption, type FormatOptions } from '../table.ts';
import type { EditFlags, IngestFlags, ListFlags, PruneFlags } from './blobs.ts';
import type { FetchFlags } from './remote.ts';

export function addContent(program: Command): void {
  const content = program.command('content').description('bytes by their digest: what images are made of');
  addBlobs(content);
  addRemote(content);
  content
    .command('prune')
    .description('drop what is held without need')
    .command('references')
    .description('drop the labels by which manifests hold their layers, which unpacked images do without')
    .option('--async', 'do not wait until what they held has been collected')
    .option('--dry', 'only show what would be dropped')
    .action((flags: PruneFlags, command: Command) =>
      withClient(command, async (session) => (await import('./blobs.ts')).pruneReferences(session, flags)),
    );
}

function addBlobs(content: Command): void {
  content
    .command('list')
    .alias('ls')
    .description('list content')
    .argument('[filter...]', 'such as size>1000000')
    .option('-q, --quiet', 'print only the digests')
    .addOption(formatOption())
    .action((filters: string[], flags: ListFlags, command: Command) =>
      withClient(command, async (session) => (await import('./blobs.ts')).list(session, filters, flags)),
    );
  content
    .command('get')
    .description('print content')
    .argument('<digest>')
    .action((digest: string, _flags: object, command: Command) =>
      withClient(command, async (session) => (await import('./blobs.ts')).get(session, digest)),
    );
  content
    .command('ingest')
    .description('store what stdin has')
    .argument('<reference>', 'names the write while it lasts')
    .option('--expected-size <bytes>', 'how many there must be', number)
    .option('--expected-digest <digest>', 'which digest they must have')
    .option('--label <key=value>', 'labels of the content', collect)
    .action((reference: string, flags: IngestFlags, command: Command) =>
      withClient(command, async (session) => (await import('./blobs.ts')).ingest(session, reference, flags)),
    );
  content
    .command('active')
    .description('list writes that are not finished')
    .argument('[pattern]', 'a regular expression for their names, or a filter such as ref==x')
    .option('-t, --timeout <duration>', 'give up after this time; 0 never', parseDuration, 0)
    .addOption(formatOption())
    .action((pattern: string | undefined, flags: FormatOptions & { timeout: number }, command: Command) =>
      withClient(command, async (session) => (await import('./blobs.ts')).active(session, pattern, flags)),
    );
  content
    .command('delete')
    .aliases(['del', 'remove', 'rm'])
    .description('remove content')
    .argument('<digest...>')
    .action((digests: string[], _flags: object, command: Command) =>
      withClient(command, async (session) => (await import('./blobs.ts')).remove(session, digests)),
    );
  content
    .command('label')
    .description('set labels of content; an empty value clears one')
    .argument('<digest>')
    .argument('[key=value...]')
    .action((digest: string, pairs: string[], _flags: object, command: Command) =>
      withClient(command, async (session) => (await import('./blobs.ts')).label(session, digest, pairs)),
    );
  content
    .command('edit')
    .description('change content in an editor, and print the digest of what comes out')
    .argument('<digest>')
    .option('--editor <command>', 'also EDITOR')
    .option('--validate <format>', 'json: refuse what is none')
    .action((digest: string, flags: EditFlags, command: Command) =>
      withClient(command, async (session) => (await import('./blobs.ts')).edit(session, digest, flags)),
    );
}

function addRemote(content: Command): void {
  addPlatforms(addRegistryFlags(content.command('fetch').description('pull an image without unpacking it')))
    .argument('<reference>')
    .option('--label <key=value>', 'labels of the image', collect)
    .option('--all-metadata', 'also manifests and configurations of other platforms')
    .option('--metadata-only', 'only manifests and configurations')
    .option('--max-concurrent-downloads <number>', 'how many layers at a time', number)
    .option('-q, --quiet', 'show no progress, and print the name of the image')
    .action((reference: string, flags: FetchFlags, command: Command) =>
      withClient(command, async (session) => (await import('./remote.ts')).fetch(session, reference, flags)),
    );
  addRegistryFlags(content.command('fetch-object').description('print what a reference names in a registry'))
    .argument('<reference>')
    .argument('[digest...]', 'in place of it, content of the same repository')
    .action((reference: string, digests: string[], flags: RegistryFlags, command: Command) =>
      withClient(command, async (session) =>
        (await import('./remote.ts')).fetchObjects(session, reference, digests, flags),
      ),
    );
  addRegistryFlags(content.command('fetch-blob').description('print content of a registry’s repository'))
    .argument('<reference>')
    .argument('<digest...>')
    .action((reference: string, digests: string[], flags: RegistryFlags, command: Command) =>
      withClient(command, async (session) =>
        (await import('./remote.ts')).fetchObjects(session, reference, digests, flags),
      ),
    );
  addRegistryFlags(content.command('push-object').description('push content as it is, without what it names'))
    .argument('<reference>')
    .argument('<digest>')
    .argument('<type>', 'its media type')
    .action((reference: string, digest: string, mediaType: string, flags: RegistryFlags, command: Command) =>
      withClient(command, async (session) =>
        (await import('./remote.ts')).pushObject(session, reference, { digest, mediaType }, flags),
      ),
    );
}
