import type { Command } from 'commander';
import { parseDuration } from './duration.ts';
import { labelText, split } from './labels.ts';
import { withClient } from './session.ts';
import { formatOption, type FormatOptions, print, printListing } from './table.ts';

export function addLeases(program: Command): void {
  const leases = program
    .command('leases')
    .alias('lease')
    .description('leases keep things from being collected as garbage');
  leases
    .command('list')
    .alias('ls')
    .description('list leases')
    .argument('[filter...]')
    .option('-q, --quiet', 'print only the ids')
    .addOption(formatOption())
    .action(list);
  leases
    .command('create')
    .description('create a lease and print its id')
    .argument('[key=value...]')
    .option('--id <id>', 'its id (default: one is made)')
    .option('-x, --expires <duration>', 'when it ends by itself; 0 for never', parseDuration, 86_400_000)
    .action((pairs: string[], flags: { id?: string; expires: number }, command: Command) =>
      withClient(command, async ({ client, call }) => {
        const labels = Object.fromEntries(pairs.map((pair) => split(pair, '')));
        const expires = flags.expires > 0 ? flags.expires : undefined;
        const { id } = await client.leases.create({ ...call, id: flags.id, labels, expires });
        console.log(id);
      }),
    );
  leases
    .command('delete')
    .aliases(['del', 'remove', 'rm'])
    .description('delete leases')
    .argument('<lease...>')
    .option('--sync', 'return when what they kept has been collected')
    .action((ids: string[], { sync = false }: { sync?: boolean }, command: Command) =>
      withClient(command, async ({ client, call }) => {
        for (const [index, id] of ids.entries()) {
          await client.leases.delete(id, { ...call, sync: sync && index === ids.length - 1 });
          console.log(id);
        }
      }),
    );
}

async function list(
  filters: string[],
  flags: FormatOptions & { quiet?: boolean },
  command: Command,
): Promise<void> {
  await withClient(command, async ({ client, sdk, call }) => {
    const leases = (await client.leases.list(filters, call)).map(({ id, createdAt, labels }) => ({
      id,
      createdAt: sdk.dateOf(createdAt),
      labels,
    }));
    if (flags.quiet === true) return print(leases.map(({ id }) => id));
    await printListing(
      {
        header: ['ID', 'CREATED AT', 'LABELS'],
        rows: leases.map(({ id, createdAt, labels }) => [id, localTime(createdAt), labelText(labels) || '-']),
        json: leases,
        spacing: [1, 1],
      },
      flags,
    );
  });
}

/** RFC 3339 to the second, in the operator's time zone. */
function localTime(date: Date | undefined): string {
  if (date === undefined) return '-';
  const offset = -date.getTimezoneOffset();
  const local = new Date(date.getTime() + offset * 60_000).toISOString().slice(0, 19);
  if (offset === 0) return `${local}Z`;
  const two = (number: number) => String(Math.trunc(Math.abs(number))).padStart(2, '0');
  return `${local}${offset < 0 ? '-' : '+'}${two(offset / 60)}:${two(offset % 60)}`;
}
