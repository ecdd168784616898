import { InvalidArgumentError, type Command } from 'commander';
import type { Link, LinkKind, LinkSettings } from '../client/client.ts';
import { Failure } from './failure.ts';
import { withClient } from './session.ts';
import { formatOption, type FormatOptions, print, printListing } from './table.ts';

/** Flags of what can be set of any link. */
interface SettingFlags {
  readonly mtu?: number;
  readonly mac?: string;
  readonly master?: string | false;
  readonly up?: boolean;
  readonly down?: boolean;
}

interface AddFlags extends SettingFlags {
  readonly peer?: string;
  readonly peerNetwork?: string;
  readonly peerMtu?: number;
  readonly peerMac?: string;
  readonly peerMaster?: string;
  readonly peerUp?: boolean;
  readonly parent?: string;
  readonly parentNetwork?: string;
  readonly mode?: string;
  readonly id?: number;
  readonly protocol?: string;
  readonly stp?: boolean;
  readonly vlanFiltering?: boolean;
}

const KINDS = ['veth', 'bridge', 'macvlan', 'ipvlan', 'vlan', 'dummy'] as const;
type Kind = (typeof KINDS)[number];

/** Which flags belong to which kind, and which of them there must be. */
const FLAGS_OF: { readonly [kind in Kind]: readonly (keyof AddFlags)[] } = {
  veth: ['peer', 'peerNetwork', 'peerMtu', 'peerMac', 'peerMaster', 'peerUp'],
  bridge: ['stp', 'vlanFiltering'],
  macvlan: ['parent', 'parentNetwork', 'mode'],
  ipvlan: ['parent', 'parentNetwork', 'mode'],
  vlan: ['parent', 'parentNetwork', 'id', 'protocol'],
  dummy: [],
};
const NEEDED: readonly (keyof AddFlags)[] = ['peer', 'parent', 'id'];

export function addLinks(network: Command): void {
  const links = network
    .command('link')
    .description('links of a network; "host" is the network of the daemon');
  links
    .command('add')
    .description('make a link, or both ends of a veth pair: all of it or nothing')
    .argument('<network>')
    .argument('<name>')
    .argument('<kind>', KINDS.join(', '), parseKind)
    .option('--mtu <bytes>', 'largest packet', parseWhole)
    .option('--mac <address>', 'MAC address')
    .option('--master <bridge>', 'bridge to be a port of')
    .option('--up', 'switch it on')
    .option('--peer <name>', 'veth: name of the other end')
    .option('--peer-network <network>', 'veth: where the other end is to be (default: the same network)')
    .option('--peer-mtu <bytes>', 'veth: largest packet of the other end', parseWhole)
    .option('--peer-mac <address>', 'veth: MAC address of the other end')
    .option('--peer-master <bridge>', 'veth: bridge that the other end is to be a port of')
    .option('--peer-up', 'veth: switch the other end on')
    .option('--parent <link>', 'macvlan, ipvlan, vlan: link that it is on')
    .option(
      '--parent-network <network>',
      'macvlan, ipvlan, vlan: where that link is (default: the same network)',
    )
    .option('--mode <mode>', 'macvlan: bridge, private, vepa, passthru; ipvlan: l2, l3, l3s')
    .option('--id <number>', 'vlan: the tag', parseWhole)
    .option('--protocol <protocol>', 'vlan: 802.1Q or 802.1ad')
    .option('--stp', 'bridge: spanning tree protocol')
    .option('--vlan-filtering', 'bridge: tell VLANs apart')
    .addOption(formatOption())
    .action((where: string, name: string, kind: Kind, flags: AddFlags & FormatOptions, command: Command) =>
      withClient(command, async ({ client, call }) => {
        const options = { ...call, ...settingsOf(flags), kind: kindOf(kind, flags) };
        await show([await client.networks.addLink(where, name, options)], flags);
      }),
    );
  links
    .command('set')
    .description('change a link')
    .argument('<network>')
    .argument('<name>')
    .option('--mtu <bytes>', 'largest packet', parseWhole)
    .option('--mac <address>', 'MAC address')
    .option('--master <bridge>', 'make it a port of a bridge')
    .option('--no-master', 'take it from its bridge')
    .option('--up', 'switch it on')
    .option('--down', 'switch it off')
    .option('--name <name>', 'another name')
    .addOption(formatOption())
    .action(
      (
        where: string,
        name: string,
        flags: SettingFlags & FormatOptions & { name?: string },
        command: Command,
      ) =>
        withClient(command, async ({ client, call }) => {
          const options = { ...call, ...settingsOf(flags), newName: flags.name };
          await show([await client.networks.setLink(where, name, options)], flags);
        }),
    );
  links
    .command('move')
    .alias('mv')
    .description('put a link into another network, where it is down and has no addresses')
    .argument('<network>')
    .argument('<name>')
    .argument('<target>', 'network that it is to be in')
    .option('--name <name>', 'its name there')
    .addOption(formatOption())
    .action(
      (
        where: string,
        name: string,
        target: string,
        flags: FormatOptions & { name?: string },
        command: Command,
      ) =>
        withClient(command, async ({ client, call }) => {
          const options = { ...call, newName: flags.name };
          await show([await client.networks.moveLink(where, name, target, options)], flags);
        }),
    );
  links
    .command('remove')
    .aliases(['rm', 'delete', 'del'])
    .description('remove links; of a veth pair both ends')
    .argument('<network>')
    .argument('<name...>')
    .action((where: string, names: string[], _flags: object, command: Command) =>
      withClient(command, async ({ client, call }) => {
        for (const name of names) {
          await client.networks.deleteLink(where, name, call);
          console.log(name);
        }
      }),
    );
  links
    .command('list')
    .alias('ls')
    .description('list links')
    .argument('<network>')
    .option('-q, --quiet', 'print only the names')
    .addOption(formatOption())
    .action((where: string, flags: FormatOptions & { quiet?: boolean }, command: Command) =>
      withClient(command, async ({ client, call }) => {
        const found = await client.networks.links(where, call);
        if (flags.quiet === true) return print(found.map(({ name }) => name));
        await show(found, flags);
      }),
    );
}

async function show(links: readonly Link[], flags: FormatOptions): Promise<void> {
  const named = (text: string) => text || '-';
  await printListing(
    {
      header: ['INDEX', 'NAME', 'KIND', 'STATE', 'MTU', 'MAC', 'MASTER', 'PARENT', 'ADDRESSES'],
      rows: links.map((link) => [
        String(link.index),
        link.name,
        link.kind,
        link.up ? link.state : 'off',
        String(link.mtu),
        named(link.mac),
        named(link.master),
        named(link.parent || (link.parentIndex === 0 ? '' : `#${link.parentIndex}`)),
        named(link.addresses.map(({ address }) => address).join(',')),
      ]),
      json: links,
      spacing: [1, 2],
      filled: 'none',
    },
    flags,
  );
}

function settingsOf({ mtu, mac, master, up, down }: SettingFlags): LinkSettings {
  if (up === true && down === true) throw new Failure('give either --up or --down');
  return {
    mtu,
    mac,
    master: master === false ? '' : master,
    up: up === true ? true : down === true ? false : undefined,
  };
}

function kindOf(kind: Kind, flags: AddFlags): LinkKind {
  for (const other of KINDS) {
    const alien = FLAGS_OF[other].find((name) => flags[name] !== undefined && !FLAGS_OF[kind].includes(name));
    if (alien !== undefined) throw new Failure(`${flagOf(alien)} is not for links of kind ${kind}`);
  }
  const missing = NEEDED.find((name) => FLAGS_OF[kind].includes(name) && flags[name] === undefined);
  if (missing !== undefined) throw new Failure(`links of kind ${kind} need ${flagOf(missing)}`);
  const { parent, parentNetwork, mode, id, protocol, stp, vlanFiltering } = flags;
  switch (kind) {
    case 'veth':
      return { $case: kind, value: vethOf(flags) };
    case 'bridge':
      return { $case: kind, value: { stp, vlanFiltering } };
    case 'macvlan':
    case 'ipvlan':
      return { $case: kind, value: { parent, parentNetwork, mode } };
    case 'vlan':
      return { $case: kind, value: { parent, parentNetwork, id, protocol } };
    case 'dummy':
    default:
      return { $case: 'dummy', value: {} };
  }
}

function vethOf({ peer, peerNetwork, peerMtu, peerMac, peerMaster, peerUp }: AddFlags) {
  const peerSettings = { mtu: peerMtu, mac: peerMac, master: peerMaster, up: peerUp };
  return { peerName: peer, peerNetwork, peerSettings };
}

function flagOf(name: string): string {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

function parseKind(text: string): Kind {
  const kind = KINDS.find((known) => known === text);
  if (kind === undefined) throw new InvalidArgumentError(`Kinds are ${KINDS.join(', ')}.`);
  return kind;
}

export function parseWhole(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('Not a whole number.');
  return Number(text);
}
