import type { Command } from 'commander';
import { withClient } from './session.ts';
import { formatOption, type FormatOptions, printListing } from './table.ts';

export function addAddresses(network: Command): void {
  const addresses = network
    .command('address')
    .alias('addr')
    .description('addresses of links; "host" is the network of the daemon');
  addresses
    .command('add')
    .description('give a link an address')
    .argument('<network>')
    .argument('<link>')
    .argument('<address>', 'with its prefix: 10.0.0.1/24, fd00::1/64')
    .option('--no-dad', 'IPv6: use it at once, without asking whether another has it')
    .action((where: string, link: string, address: string, { dad }: { dad: boolean }, command: Command) =>
      withClient(command, async ({ client, call }) => {
        await client.networks.addAddress(where, link, address, { ...call, noDad: !dad });
      }),
    );
  addresses
    .command('remove')
    .aliases(['rm', 'delete', 'del'])
    .description('take an address from a link')
    .argument('<network>')
    .argument('<link>')
    .argument('<address>', 'with its prefix')
    .action((where: string, link: string, address: string, _flags: object, command: Command) =>
      withClient(command, async ({ client, call }) => {
        await client.networks.deleteAddress(where, link, address, call);
      }),
    );
  addresses
    .command('list')
    .alias('ls')
    .description('list addresses')
    .argument('<network>')
    .argument('[link]')
    .addOption(formatOption())
    .action(list);
}

async function list(
  where: string,
  name: string | undefined,
  flags: FormatOptions,
  command: Command,
): Promise<void> {
  await withClient(command, async ({ client, call }) => {
    const links =
      name === undefined
        ? await client.networks.links(where, call)
        : [await client.networks.link(where, name, call)];
    const addresses = links.flatMap(({ name: link, addresses: all }) =>
      all.map((address) => ({ link, ...address })),
    );
    const doubt = (address: { tentative: boolean; duplicate: boolean }) =>
      address.duplicate ? 'duplicate' : address.tentative ? 'tentative' : '-';
    await printListing(
      {
        header: ['LINK', 'ADDRESS', 'SCOPE', 'BROADCAST', 'DOUBT'],
        rows: addresses.map((entry) => [
          entry.link,
          entry.address,
          entry.scope,
          entry.broadcast || '-',
          doubt(entry),
        ]),
        json: addresses,
        spacing: [1, 2],
        filled: 'none',
      },
      flags,
    );
  });
}
