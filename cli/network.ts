import type { Command } from 'commander';
import type { Network } from '../client/client.ts';
import { labelText, parseLabels } from './labels.ts';
import { addAddresses } from './network-address.ts';
import { addLinks } from './network-link.ts';
import { addRoutes } from './network-route.ts';
import { type Session, withClient } from './session.ts';
import { formatOption, type FormatOptions, print, printJson, printListing } from './table.ts';

export function addNetwork(program: Command): void {
  const network = program
    .command('network')
    .alias('net')
    .description('networks that containers join: network namespaces, links, addresses, routes');
  network
    .command('create')
    .description('make a network, and print the path by which containers join it')
    .argument('<name>')
    .argument('[key=value...]', 'labels')
    .action((name: string, pairs: string[], _flags: object, command: Command) =>
      withClient(command, async ({ client, call }) => {
        const { path } = await client.networks.create(name, parseLabels(pairs), call);
        console.log(path);
      }),
    );
  network
    .command('list')
    .alias('ls')
    .description('list networks')
    .argument('[filter...]', 'such as name==blue or labels.x==y')
    .option('-q, --quiet', 'print only the names')
    .addOption(formatOption())
    .action(list);
  network
    .command('inspect')
    .alias('info')
    .description('print all there is to know of a network, as JSON')
    .argument('<name>')
    .action((name: string, _flags: object, command: Command) =>
      withClient(command, async (session) => {
        printJson(await inspected(session, name));
      }),
    );
  network
    .command('label')
    .description('set labels of a network; an empty value clears one')
    .argument('<name>')
    .argument('<key=value...>')
    .action((name: string, pairs: string[], _flags: object, command: Command) =>
      withClient(command, async ({ client, call }) => {
        await client.networks.label(name, parseLabels(pairs), call);
      }),
    );
  network
    .command('remove')
    .aliases(['rm', 'delete', 'del'])
    .description('remove networks with the virtual links in them')
    .argument('<name...>')
    .option('-f, --force', 'although containers or processes use them')
    .action((names: string[], { force }: { force?: boolean }, command: Command) =>
      withClient(command, async ({ client, call }) => {
        for (const name of names) {
          await client.networks.delete(name, { ...call, force });
          console.log(name);
        }
      }),
    );
  addLinks(network);
  addAddresses(network);
  addRoutes(network);
}

async function list(
  filters: string[],
  flags: FormatOptions & { quiet?: boolean },
  command: Command,
): Promise<void> {
  await withClient(command, async ({ client, sdk, call }) => {
    const networks = await client.networks.list(filters, call);
    if (flags.quiet === true) return print(networks.map(({ name }) => name));
    await printListing(
      {
        header: ['NAME', 'PATH', 'LABELS'],
        rows: networks.map(({ name, path, labels }) => [name, path, labelText(labels) || '-']),
        json: networks.map((network) => shown(network, sdk)),
        spacing: [1, 2],
        filled: 'none',
      },
      flags,
    );
  });
}

const shown = ({ createdAt, ...network }: Network, { dateOf }: Pick<Session['sdk'], 'dateOf'>) => ({
  ...network,
  createdAt: dateOf(createdAt),
});

async function inspected({ client, sdk, call }: Session, name: string): Promise<object> {
  const isHost = name === sdk.HOST_NETWORK;
  const network = isHost ? { name } : shown(await client.networks.get(name, call), sdk);
  const links = await client.networks.links(name, call);
  return { ...network, links, routes: await client.networks.routes(name, call) };
}
