/** `moor snapshots`, with ctr's verbs and flags. What a verb does is loaded when it is used. */
import type { Command } from 'commander';
import { addSnapshotter } from '../image/commands.ts';
import type { SnapshotterFlags } from '../image/platforms.ts';
import { collect } from '../labels.ts';
import { type Session, withClient } from '../session.ts';
import { formatOption } from '../table.ts';
import type { DiffFlags } from './diff.ts';
import type * as verbs from './verbs.ts';
import type { MountFlags, UsageFlags } from './verbs.ts';

export function addSnapshots(program: Command): void {
  const snapshots = addSnapshotter(
    program
      .command('snapshots')
      .alias('snapshot')
      .description('root filesystems, and the layers they are made of'),
  );
  addReading(snapshots);
  addWriting(snapshots);
  snapshots
    .command('diff')
    .description('print what one snapshot has beyond another, as a layer')
    .argument('<a>')
    .argument('[b]', 'default: what a has beyond its parent')
    .option('--media-type <type>', 'of the layer', 'application/vnd.oci.image.layer.v1.tar+gzip')
    .option('--ref <reference>', 'names the write of the layer')
    .option('--keep', 'keep the layer as content; its maker has to delete it')
    .option('--label <key=value>', 'labels of the layer', collect)
    .action((a: string, b: string | undefined, flags: DiffFlags, command: Command) =>
      withClient(command, async (session) =>
        (await import('./diff.ts')).diff(session, of(command), a, b, flags),
      ),
    );
  addSnapshotter(
    snapshots
      .command('unpack')
      .description('make the snapshots of an image')
      .argument('<image>', 'the digest of its manifest or index, or its name'),
  ).action(verb(({ unpack }, session, flags, [image = '']) => unpack(session, flags, image)));
}

/** Flags of the group and of the verb: either may name the snapshotter. */
function of(command: Command): SnapshotterFlags {
  return command.optsWithGlobals<SnapshotterFlags>();
}

/** Of all verbs together: each has those that it declares. */
type Flags = MountFlags & UsageFlags;

type Run = (loaded: typeof verbs, session: Session, flags: Flags, words: string[]) => Promise<void>;

function verb(run: Run) {
  return (...args: unknown[]): Promise<void> => {
    const command = args.at(-1) as Command;
    return withClient(command, async (session) =>
      run(await import('./verbs.ts'), session, command.optsWithGlobals<Flags>(), command.args),
    );
  };
}

function addReading(snapshots: Command): void {
  snapshots
    .command('list')
    .alias('ls')
    .description('list snapshots')
    .argument('[filter...]', 'such as kind==committed')
    .addOption(formatOption())
    .action(verb(({ list }, session, flags, filters) => list(session, flags, filters)));
  snapshots
    .command('info')
    .description('show all that is known of a snapshot')
    .argument('<key>')
    .action(verb(({ info }, session, flags, [key = '']) => info(session, flags, key)));
  snapshots
    .command('usage')
    .description('show what snapshots take beyond their parents')
    .argument('[key...]')
    .option('-b', 'sizes in bytes')
    .addOption(formatOption())
    .action(verb(({ usage }, session, flags, keys) => usage(session, flags, keys)));
  snapshots
    .command('tree')
    .description('show which snapshots are made on which')
    .action(verb(({ tree }, session, flags) => tree(session, flags)));
  snapshots
    .command('mounts')
    .aliases(['m', 'mount'])
    .description('print the command that mounts a snapshot')
    .argument('<target>')
    .argument('<key>')
    .action(
      verb(({ mounts }, session, flags, [target = '', key = '']) => mounts(session, flags, target, key)),
    );
}

function addWriting(snapshots: Command): void {
  const made = (name: 'prepare' | 'view', description: string) =>
    snapshots
      .command(name)
      .description(description)
      .argument('<key>')
      .argument('[parent]')
      .option('-t, --target <directory>', 'print the command that mounts it there')
      .option('--mounts', 'print how to mount it, as JSON')
      .action(
        verb(({ make }, session, flags, [key = '', parent]) => make(session, flags, name, key, parent)),
      );
  made('prepare', 'make a snapshot to be written');
  made('view', 'make a snapshot to be read');
  snapshots
    .command('commit')
    .description('make of a prepared snapshot one that others can be made on')
    .argument('<key>', 'the new one')
    .argument('<active>', 'the prepared one')
    .action(verb(({ commit }, session, flags, [key = '', from = '']) => commit(session, flags, key, from)));
  snapshots
    .command('label')
    .description('set labels of a snapshot; an empty value clears one')
    .argument('<key>')
    .argument('[key=value...]')
    .action(verb(({ label }, session, flags, [key = '', ...pairs]) => label(session, flags, key, pairs)));
  snapshots
    .command('delete')
    .aliases(['del', 'remove', 'rm'])
    .description('remove snapshots')
    .argument('<key...>')
    .action(verb(({ remove }, session, flags, keys) => remove(session, flags, keys)));
}
