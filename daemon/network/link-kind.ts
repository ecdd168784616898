/** What can be asked of a link, checked and put in ip(8)'s words. */
import type { AddLinkRequest, LinkSettings } from '../../proto/gen/moor/services/network.ts';
import { invalidArgument } from '../../ttrpc/errors.ts';
import type { NetworkName } from '../identifiers.ts';
import { type HOST, type LinkName, type Mac, parseLinkName, parseMac, parseNetwork } from './names.ts';

type Network = NetworkName | typeof HOST;

/** What can be set of any link; what is undefined stays as it is. */
export interface Settings {
  readonly mtu: number | undefined;
  readonly mac: Mac | undefined;
  /** A bridge; empty for none. */
  readonly master: LinkName | '' | undefined;
  readonly up: boolean | undefined;
}

/** One end of what is to be made. */
export interface End {
  readonly network: Network;
  readonly name: LinkName;
  readonly settings: Settings;
}

/** A link to be made, or two. */
export interface Plan {
  readonly kind: string;
  readonly first: End;
  /** The other end of a veth. */
  readonly peer?: End;
  /** The link that it will be on. */
  readonly parent?: { readonly network: Network; readonly name: LinkName };
  /** What ip is told after `type`, beside the peer. */
  readonly details: readonly string[];
}

/** The least that IPv4 works with (RFC 791), and the most that the kernel takes. */
const MTU = [68, 65535] as const;
/** 0 and 4095 are reserved (IEEE 802.1Q). */
const VLAN_ID = [1, 4094] as const;

/** @throws RpcError InvalidArgument */
export function parseSettings(settings: LinkSettings | undefined): Settings {
  const { mtu, mac, master, up } = settings ?? {};
  if (mtu !== undefined) checkRange('mtu', mtu, MTU);
  return {
    mtu,
    mac: mac === undefined ? undefined : parseMac(mac),
    master: master === undefined || master === '' ? master : parseLinkName(master, 'master'),
    up,
  };
}

/** @throws RpcError InvalidArgument */
export function parsePlan(request: AddLinkRequest): Plan {
  const network = parseNetwork(request.network);
  const name = parseLinkName(request.name);
  const first = { network, name, settings: parseSettings(request.settings) };
  const { kind } = request;
  switch (kind?.$case) {
    case 'veth': {
      const { peerName, peerNetwork, peerSettings } = kind.value;
      const peer = {
        network: peerNetwork === '' ? network : parseNetwork(peerNetwork),
        name: parseLinkName(peerName, 'peer'),
        settings: parseSettings(peerSettings),
      };
      if (peer.network === network && peer.name === name) {
        throw invalidArgument(`the ends of a veth in one network cannot both be "${name}": invalid argument`);
      }
      return { kind: 'veth', first, peer, details: [] };
    }
    case 'bridge': {
      const { stp, vlanFiltering } = kind.value;
      const details = [...(stp ? ['stp_state', '1'] : []), ...(vlanFiltering ? ['vlan_filtering', '1'] : [])];
      return { kind: 'bridge', first, details };
    }
    case 'macvlan': {
      const mode = oneOf('mode', kind.value.mode || 'bridge', ['bridge', 'private', 'vepa', 'passthru']);
      return { kind: 'macvlan', first, parent: parentOf(network, kind.value), details: ['mode', mode] };
    }
    case 'ipvlan': {
      const mode = oneOf('mode', kind.value.mode || 'l2', ['l2', 'l3', 'l3s']);
      return { kind: 'ipvlan', first, parent: parentOf(network, kind.value), details: ['mode', mode] };
    }
    case 'vlan': {
      const { id } = kind.value;
      checkRange('vlan id', id, VLAN_ID);
      const protocol = oneOf('protocol', kind.value.protocol || '802.1Q', ['802.1Q', '802.1ad']);
      const details = ['protocol', protocol, 'id', String(id)];
      return { kind: 'vlan', first, parent: parentOf(network, kind.value), details };
    }
    case 'dummy':
      return { kind: 'dummy', first, details: [] };
    case undefined:
    default:
      throw invalidArgument(`link "${name}": what kind it is to be must be said: invalid argument`);
  }
}

/** ip's words for what can be set in the message that makes a link, on either end. */
export function creationWords({ mtu, mac }: Settings): string[] {
  return [...(mtu === undefined ? [] : ['mtu', String(mtu)]), ...(mac === undefined ? [] : ['address', mac])];
}

/** ip's words for what is set of a link that is there. */
export function changeWords({ master, up, ...rest }: Settings): string[] {
  return [
    ...creationWords(rest as Settings),
    ...(master === undefined ? [] : master === '' ? ['nomaster'] : ['master', master]),
    ...(up === undefined ? [] : [up ? 'up' : 'down']),
  ];
}

function parentOf(
  network: Network,
  { parent, parentNetwork }: { readonly parent: string; readonly parentNetwork: string },
): NonNullable<Plan['parent']> {
  return {
    network: parentNetwork === '' ? network : parseNetwork(parentNetwork),
    name: parseLinkName(parent, 'parent'),
  };
}

function oneOf(what: string, value: string, choices: readonly string[]): string {
  if (choices.includes(value)) return value;
  throw invalidArgument(
    `${what} ${JSON.stringify(value)} is none of ${choices.join(', ')}: invalid argument`,
  );
}

function checkRange(what: string, value: number, [least, most]: readonly [number, number]): void {
  if (value < least || value > most) {
    throw invalidArgument(`${what} ${value} is not between ${least} and ${most}: invalid argument`);
  }
}
