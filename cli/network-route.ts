import { type Command, Option } from 'commander';
import { parseWhole } from './network-link.ts';
import { withClient } from './session.ts';
import { formatOption, type FormatOptions, printListing } from './table.ts';

interface RouteFlags {
  readonly via?: string;
  readonly link?: string;
  readonly source?: string;
  readonly metric?: number;
  readonly scope?: string;
  readonly onlink?: boolean;
  readonly '6'?: boolean;
}

export function addRoutes(network: Command): void {
  const routes = network
    .command('route')
    .description('routes of the main table; "host" is the network of the daemon');
  withRouteFlags(routes.command('add').description('add a route'))
    .option('--onlink', 'the gateway is on the link although no route says so')
    .action((where: string, destination: string, flags: RouteFlags, command: Command) =>
      withClient(command, async ({ client, call }) => {
        await client.networks.addRoute(where, routeOf(destination, flags), call);
      }),
    );
  withRouteFlags(
    routes
      .command('remove')
      .aliases(['rm', 'delete', 'del'])
      .description('remove the route that is all of what is said'),
  ).action((where: string, destination: string, flags: RouteFlags, command: Command) =>
    withClient(command, async ({ client, call }) => {
      await client.networks.deleteRoute(where, routeOf(destination, flags), call);
    }),
  );
  routes
    .command('list')
    .alias('ls')
    .description('list routes')
    .argument('<network>')
    .addOption(formatOption())
    .action(list);
}

function withRouteFlags(command: Command): Command {
  return command
    .argument('<network>')
    .argument('<destination>', '10.1.0.0/16, fd01::/64 or default')
    .option('--via <address>', 'gateway')
    .option('--link <name>', 'link that it goes out by')
    .option('--source <address>', 'source address that it prefers')
    .option('--metric <number>', 'of several routes the one with the least is taken', parseWhole)
    .addOption(new Option('--scope <scope>', 'how far it reaches').choices(['global', 'link', 'host']))
    .option('-6', 'IPv6, where nothing else says so');
}

function routeOf(destination: string, flags: RouteFlags) {
  const { via: gateway, link, source, metric, scope, onlink } = flags;
  return { destination, gateway, link, source, metric, scope, onlink, family: flags['6'] ? 'inet6' : '' };
}

async function list(where: string, flags: FormatOptions, command: Command): Promise<void> {
  await withClient(command, async ({ client, call }) => {
    const routes = await client.networks.routes(where, call);
    await printListing(
      {
        header: ['DESTINATION', 'GATEWAY', 'LINK', 'SOURCE', 'METRIC', 'PROTOCOL', 'SCOPE'],
        rows: routes.map((route) => [
          // Both families have a default route.
          route.destination === 'default' && route.family === 'inet6' ? '::/0' : route.destination,
          route.gateway || '-',
          route.link || '-',
          route.source || '-',
          String(route.metric),
          route.protocol || '-',
          route.scope || '-',
        ]),
        json: routes,
        spacing: [1, 2],
        filled: 'none',
      },
      flags,
    );
  });
}
