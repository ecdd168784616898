/** Links as `ip -json -details address show` prints them (iproute2 6.1, ip/ipaddress.c). */
import type { Address, Link } from '../../proto/gen/moor/services/network.ts';

interface ListedLink {
  readonly ifindex: number;
  readonly ifname: string;
  readonly link?: string;
  readonly link_index?: number;
  readonly flags: readonly string[];
  readonly mtu: number;
  readonly master?: string;
  readonly operstate?: string;
  readonly link_type: string;
  readonly address?: string;
  readonly linkinfo?: {
    readonly info_kind?: string;
    readonly info_data?: { readonly mode?: string; readonly id?: number };
  };
  readonly addr_info?: readonly ListedAddress[];
}

interface ListedAddress {
  readonly local: string;
  readonly prefixlen: number;
  readonly scope: string;
  readonly broadcast?: string;
  readonly tentative?: boolean;
  readonly dadfailed?: boolean;
}

export function linksOf(entries: readonly object[]): Link[] {
  const listed = entries as readonly ListedLink[];
  const indices = new Map(listed.map(({ ifname, ifindex }) => [ifname, ifindex]));
  return listed.map((entry) => ({
    index: entry.ifindex,
    name: entry.ifname,
    kind: entry.linkinfo?.info_kind ?? entry.link_type,
    mac: entry.address ?? '',
    mtu: entry.mtu,
    up: entry.flags.includes('UP'),
    state: (entry.operstate ?? 'unknown').toLowerCase(),
    master: entry.master ?? '',
    parent: entry.link ?? '',
    parentIndex: entry.link_index ?? indices.get(entry.link ?? '') ?? 0,
    mode: entry.linkinfo?.info_data?.mode ?? '',
    vlanId: entry.linkinfo?.info_kind === 'vlan' ? (entry.linkinfo.info_data?.id ?? 0) : 0,
    addresses: (entry.addr_info ?? []).map(addressOf),
  }));
}

function addressOf(entry: ListedAddress): Address {
  return {
    address: `${entry.local}/${entry.prefixlen}`,
    scope: entry.scope,
    broadcast: entry.broadcast ?? '',
    tentative: entry.tentative ?? false,
    duplicate: entry.dadfailed ?? false,
  };
}
