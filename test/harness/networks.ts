/** Networks in tests: the SDK against a daemon, and what is on the host. */
import { execFileSync } from 'node:child_process';
import { type Client, type Link, connect } from '../../client/client.ts';
import type { Ctr } from './ctr.ts';
import type { Daemon } from './daemon.ts';
import { failureOf } from './rpc.ts';

/** The SDK in the namespace of a ctr. */
export function sdk(daemon: Daemon, ctr: Ctr): Promise<Client> {
  return connect({ address: daemon.address, namespace: ctr.namespace, patience: 10_000 });
}

/** Names of the links in the network that the tests run in. */
export function hostLinks(): string[] {
  const listed = execFileSync('ip', ['-json', 'link'], { encoding: 'utf8' });
  return (JSON.parse(listed) as { ifname: string }[]).map(({ ifname }) => ifname);
}

/** The gRPC code and the words by which a call of the SDK fails. */
export async function refusalOf(call: Promise<unknown>): Promise<string> {
  const failure = await failureOf(
    call.then(undefined, (error: Error & { code: number }) => {
      throw Object.assign(error, { details: error.message });
    }),
  );
  return `${failure.code} ${failure.message}`;
}

/** Names of links but the loopback one. */
export async function linkNames(client: Client, network: string): Promise<string[]> {
  return (await client.networks.links(network)).map(({ name }) => name).filter((name) => name !== 'lo');
}

/** Joins a network to the bridge `br0` of the network `hub`, with an address. */
export async function plug(client: Client, network: string, address: string): Promise<Link> {
  const peer = { peerName: `p-${network}`, peerNetwork: 'hub', peerSettings: { master: 'br0', up: true } };
  const link = await client.networks.addLink(network, 'eth0', {
    up: true,
    kind: { $case: 'veth', value: peer },
  });
  await client.networks.addAddress(network, 'eth0', address);
  return link;
}

/** Makes the network `hub` with the bridge `br0`. */
export async function makeHub(client: Client): Promise<void> {
  await client.networks.create('hub');
  await client.networks.addLink('hub', 'br0', { up: true, kind: { $case: 'bridge', value: {} } });
}
