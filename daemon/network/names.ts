/** What clients say of links, addresses and routes, checked once at the edge. What has one of these types may be an argument of ip(8). */
import { isIP } from 'node:net';
import { invalidArgument } from '../../ttrpc/errors.ts';
import { type NetworkName, checkIdentifier } from '../identifiers.ts';

declare const brand: unique symbol;
type Branded<Name extends string> = string & { readonly [brand]: Name };

/** A link's name within its network. */
export type LinkName = Branded<'LinkName'>;
/** A MAC address that a link can have. */
export type Mac = Branded<'Mac'>;
export type Family = 'inet' | 'inet6';

/** An IP address with the length of its prefix. */
export interface Cidr {
  readonly text: string;
  readonly family: Family;
}

/** What routes lead to: a prefix, or everything. */
export type Destination = Cidr | 'default';

/** The name of the network that the daemon is in. No other can have it. */
export const HOST = 'host';

/** IFNAMSIZ of linux/if.h, less the zero byte. */
const MAX_LINK_NAME = 15;
/** Fewer characters than the kernel allows: none that ip(8), shells or sysctl(8) take for something else. */
const linkName = /^[A-Za-z0-9_][A-Za-z0-9_.@+-]*$/;
const mac = /^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/i;

const shown = (value: string): string => JSON.stringify(value.length > 64 ? `${value.slice(0, 64)}…` : value);

/** @throws RpcError InvalidArgument, for `host` as well */
export function parseNetworkName(value: string): NetworkName {
  try {
    checkIdentifier(value);
  } catch (error) {
    throw invalidArgument(`network: ${(error as Error).message}`, error);
  }
  if (value === HOST) {
    throw invalidArgument(
      'network "host" is the one of the daemon and cannot be made or removed: invalid argument',
    );
  }
  return value as NetworkName;
}

/** @throws RpcError InvalidArgument */
export function parseNetwork(value: string): NetworkName | typeof HOST {
  return value === HOST ? HOST : parseNetworkName(value);
}

/** @param what the field, for the message @throws RpcError InvalidArgument */
export function parseLinkName(value: string, what = 'link'): LinkName {
  if (value === '') throw invalidArgument(`${what}: a name must be given: invalid argument`);
  if (value.length > MAX_LINK_NAME) {
    throw invalidArgument(
      `${what} ${shown(value)} is longer than ${MAX_LINK_NAME} characters: invalid argument`,
    );
  }
  if (!linkName.test(value)) {
    throw invalidArgument(`${what} ${shown(value)} must match ${linkName.source}: invalid argument`);
  }
  return value as LinkName;
}

/** @throws RpcError InvalidArgument for what is no address of one host */
export function parseMac(value: string): Mac {
  if (!mac.test(value)) {
    throw invalidArgument(`${shown(value)} is no MAC address such as 02:00:00:00:00:01: invalid argument`);
  }
  // The lowest bit of the first octet marks groups of hosts (IEEE 802).
  if ((Number.parseInt(value.slice(0, 2), 16) & 1) !== 0) {
    throw invalidArgument(`MAC address ${value} is a multicast address: invalid argument`);
  }
  if (/^[0:]+$/.test(value)) throw invalidArgument('a MAC address cannot be all zeros: invalid argument');
  return value.toLowerCase() as Mac;
}

/** @throws RpcError InvalidArgument */
export function parseAddress(value: string): Cidr {
  const cidr = cidrOf(value);
  if (cidr === undefined || !value.includes('/')) {
    throw invalidArgument(
      `${shown(value)} is no address such as 10.0.0.1/24 or fd00::1/64: invalid argument`,
    );
  }
  return cidr;
}

/** @throws RpcError InvalidArgument */
export function parseDestination(value: string): Destination {
  if (value === 'default') return 'default';
  const cidr = cidrOf(value);
  if (cidr === undefined) {
    throw invalidArgument(
      `${shown(value)} is no destination such as 10.1.0.0/16, fd01::/64 or default: invalid argument`,
    );
  }
  return cidr;
}

/** An address without a prefix. @param what the field, for the message @throws RpcError InvalidArgument */
export function parseHost(value: string, what: string): Cidr {
  const cidr = value.includes('/') ? undefined : cidrOf(value);
  if (cidr === undefined) throw invalidArgument(`${what} ${shown(value)} is no IP address: invalid argument`);
  return cidr;
}

function cidrOf(value: string): Cidr | undefined {
  const [address = '', length, ...rest] = value.split('/');
  const version = isIP(address);
  // isIP takes zones (fe80::1%eth0), ip(8) does not.
  if (version === 0 || address.includes('%') || rest.length > 0) return undefined;
  if (length !== undefined && (!/^\d{1,3}$/.test(length) || Number(length) > (version === 4 ? 32 : 128))) {
    return undefined;
  }
  return { text: value, family: version === 4 ? 'inet' : 'inet6' };
}
