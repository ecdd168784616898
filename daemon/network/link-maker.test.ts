/** What ip(8) is told. Kinds that a kernel may not have are seen here alone. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AddLinkRequest } from '../../proto/gen/moor/services/network.ts';
import { Code, isCode } from '../../ttrpc/errors.ts';
import type { PartialMessage } from '../../ttrpc/service.ts';
import { IpFailure } from './iproute.ts';
import { parsePlan } from './link-kind.ts';
import { linksOf } from './link-listing.ts';
import { LinkMaker } from './link-maker.ts';
import type { Networks } from './networks.ts';
import type { Place } from './place.ts';

const place = (name: string): Place =>
  (name === 'host'
    ? { name, namespace: '', netns: undefined }
    : { name, namespace: 'ns', netns: `/netns/${name}` }) as Place;

/** The commands by which a link is made, with where they are run. `refuse` fails those it matches. */
async function made(request: PartialMessage<AddLinkRequest>, refuse?: RegExp): Promise<string[]> {
  const said: string[] = [];
  const ip = {
    change: async (netns: string | undefined, words: readonly string[]) => {
      const line = `${netns ?? 'host'}: ${words.join(' ').replace(/group [1-9]\d*/, 'group N')}`;
      said.push(line);
      if (refuse?.test(line)) throw new IpFailure('RTNETLINK answers: No buffer space available');
    },
    show: async (netns: string | undefined, words: readonly string[]) => {
      said.push(`${netns ?? 'host'}: ${words.join(' ').replace(/\d+$/, 'N')}`);
      return [{ ifname: 'a', ifindex: 2, flags: [], mtu: 1500, link_type: 'ether' }];
    },
  };
  const records = {
    beginLink: async (_group: number, where: object) => said.push(`begin ${JSON.stringify(where)}`),
    endLink: async () => said.push('end'),
  };
  const maker = new LinkMaker({ ip, records, log: {} } as unknown as Networks);
  const plan = parsePlan(AddLinkRequest.fromPartial(request));
  const other = plan.peer?.network ?? plan.parent?.network ?? plan.first.network;
  try {
    await maker.make(plan, place(plan.first.network), place(other));
  } catch (error) {
    assert.ok(isCode(error, Code.ResourceExhausted));
  }
  return said;
}

test('what is one message to the kernel is done without a record', async () => {
  assert.deepEqual(await made({ network: 'n', name: 'a', kind: { $case: 'dummy', value: {} } }), [
    '/netns/n: link add name a type dummy',
  ]);
  const bridge = { $case: 'bridge', value: { stp: true, vlanFiltering: true } } as const;
  assert.deepEqual(
    await made({ network: 'host', name: 'a', settings: { up: true, mtu: 1400 }, kind: bridge }),
    ['host: link add name a mtu 1400 up type bridge stp_state 1 vlan_filtering 1'],
  );
  const vlan = { $case: 'vlan', value: { parent: 'eth0', id: 5 } } as const;
  assert.deepEqual(await made({ network: 'n', name: 'a', settings: { master: 'br0' }, kind: vlan }), [
    '/netns/n: link add link eth0 name a master br0 type vlan protocol 802.1Q id 5',
  ]);
  const veth = { peerName: 'b', peerNetwork: 'm', peerSettings: { mac: '02:00:00:00:00:01' } };
  assert.deepEqual(
    await made({ network: 'n', name: 'a', settings: { up: true }, kind: { $case: 'veth', value: veth } }),
    ['/netns/n: link add name a up type veth peer name b address 02:00:00:00:00:01 netns /netns/m'],
  );
});

test('a link on a parent elsewhere is made there, and set up where it is', async () => {
  const ipvlan = { $case: 'ipvlan', value: { parent: 'eth0', parentNetwork: 'host', mode: 'l3' } } as const;
  assert.deepEqual(await made({ network: 'n', name: 'a', kind: ipvlan }), [
    'host: link add link eth0 name a netns /netns/n type ipvlan mode l3',
  ]);
  assert.deepEqual(await made({ network: 'n', name: 'a', settings: { up: true, mtu: 1400 }, kind: ipvlan }), [
    'begin {"namespace":"ns","network":"n"}',
    'host: link add link eth0 name a group N mtu 1400 netns /netns/n type ipvlan mode l3',
    '/netns/n: link set dev a up',
    '/netns/n: link set dev a group 0',
    'end',
  ]);
});

const pair = {
  network: 'n',
  name: 'a',
  kind: {
    $case: 'veth',
    value: { peerName: 'b', peerNetwork: 'host', peerSettings: { master: 'br0', up: true } },
  },
} as const;

test('a pair that takes several steps is recorded, and marked until the last one', async () => {
  assert.deepEqual(await made(pair), [
    'begin {"namespace":"ns","network":"n"}',
    `/netns/n: link add name a group N type veth peer name b netns /proc/${process.pid}/ns/net`,
    'host: link set dev b master br0 up',
    '/netns/n: link set dev a group 0',
    'end',
  ]);
});

test('a step that is refused has those before it undone', async () => {
  assert.deepEqual(await made(pair, /master br0/), [
    'begin {"namespace":"ns","network":"n"}',
    `/netns/n: link add name a group N type veth peer name b netns /proc/${process.pid}/ns/net`,
    'host: link set dev b master br0 up',
    '/netns/n: address show group N',
    '/netns/n: link delete dev a',
    'end',
  ]);
});

test('links are read from what iproute2 prints', () => {
  // As iproute2 6.1 prints them on a kernel that has all kinds.
  const lower = { ifindex: 2, ifname: 'eth0', flags: ['UP'], mtu: 1500, link_type: 'ether', operstate: 'UP' };
  const vlan = {
    ifindex: 3,
    link: 'eth0',
    ifname: 'v5',
    flags: ['BROADCAST'],
    mtu: 1496,
    master: 'br0',
    link_type: 'ether',
    address: '02:00:00:00:00:01',
    linkinfo: { info_kind: 'vlan', info_data: { protocol: '802.1Q', id: 5, flags: ['REORDER_HDR'] } },
    addr_info: [
      { family: 'inet6', local: 'fe80::1', prefixlen: 64, scope: 'link', tentative: true },
      { family: 'inet', local: '10.0.0.1', prefixlen: 24, broadcast: '10.0.0.255', scope: 'global' },
    ],
  };
  const ipvlan = {
    ...lower,
    ifindex: 4,
    link_index: 9,
    ifname: 'i0',
    linkinfo: { info_kind: 'ipvlan', info_data: { mode: 'l2', flags: ['bridge'] } },
  };
  const [, first, second] = linksOf([lower, vlan, ipvlan]);
  assert.deepEqual(first, {
    index: 3,
    name: 'v5',
    kind: 'vlan',
    mac: '02:00:00:00:00:01',
    mtu: 1496,
    up: false,
    state: 'unknown',
    master: 'br0',
    parent: 'eth0',
    parentIndex: 2,
    mode: '',
    vlanId: 5,
    addresses: [
      { address: 'fe80::1/64', scope: 'link', broadcast: '', tentative: true, duplicate: false },
      {
        address: '10.0.0.1/24',
        scope: 'global',
        broadcast: '10.0.0.255',
        tentative: false,
        duplicate: false,
      },
    ],
  });
  assert.deepEqual(
    [second!.kind, second!.mode, second!.parent, second!.parentIndex, second!.state, second!.vlanId],
    ['ipvlan', 'l2', '', 9, 'up', 0],
  );
});
