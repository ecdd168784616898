import type { Command } from 'commander';
import { type FormatOptions, formatOption, print, printListing } from './table.ts';
import { type Session, withClient } from './session.ts';

interface ListFlags extends FormatOptions {
  readonly quiet?: boolean;
}

export function addSandboxes(program: Command): void {
  const sandboxes = program
    .command('sandboxes')
    .aliases(['sandbox', 'sb', 's'])
    .description('sandboxes: groups of containers that a shim holds together');
  sandboxes
    .command('run')
    .aliases(['create', 'c', 'r'])
    .description('make a sandbox, start it and print its id')
    .argument('<sandbox>')
    .option('--runtime <name>', 'name of the runtime whose shim it has, or the path of a shim')
    .action((id: string, { runtime }: { runtime?: string }, command: Command) =>
      withClient(command, (session) => run(session, id, runtime)),
    );
  sandboxes
    .command('list')
    .alias('ls')
    .description('list sandboxes')
    .argument('[filter...]')
    .option('-q, --quiet', 'print only the ids')
    .addOption(formatOption())
    .action((filters: string[], flags: ListFlags, command: Command) =>
      withClient(command, (session) => list(session, filters, flags)),
    );
  sandboxes
    .command('remove')
    .alias('rm')
    .description('stop and remove sandboxes; what runs in them ends')
    .argument('<sandbox...>')
    .action((ids: string[], _flags: object, command: Command) =>
      withClient(command, async ({ client, call }) => {
        for (const id of ids) {
          await (await client.sandboxes.get(id, call)).remove(call);
          console.log(id);
        }
      }),
    );
}

async function run({ client, call }: Session, id: string, runtime: string | undefined): Promise<void> {
  const sandbox = await client.sandboxes.create(id, { ...call, runtime });
  try {
    await sandbox.start(call);
  } catch (error) {
    // It is not listed then, nor in the way of another try.
    await sandbox.remove().catch(() => undefined);
    throw error;
  }
  console.log(id);
}

async function list(
  { client, sdk, call }: Session,
  filters: readonly string[],
  flags: ListFlags,
): Promise<void> {
  const sandboxes = (await client.sandboxes.list(filters, call)).map(({ id, record }) => ({
    id,
    createdAt: sdk.dateOf(record.createdAt),
    runtime: record.runtime?.name ?? '',
    sandboxer: record.sandboxer,
    labels: record.labels,
  }));
  if (flags.quiet === true) return print(sandboxes.map(({ id }) => id));
  await printListing(
    {
      header: ['ID', 'CREATED', 'RUNTIME', 'SANDBOXER'],
      rows: sandboxes.map(({ id, createdAt, runtime, sandboxer }) => [
        id,
        createdAt?.toISOString() ?? '-',
        runtime || '-',
        sandboxer || '-',
      ]),
      json: sandboxes,
      spacing: [1, 1],
    },
    flags,
  );
}
