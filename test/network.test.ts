/** Networks as clients have them: named network namespaces that outlive containers and daemons, and what is in them. */
import assert from 'node:assert/strict';
import { execFile, execFileSync, spawn } from 'node:child_process';
import { existsSync, readlinkSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { promisify } from 'node:util';
import type { Client, LinkKind } from '../client/client.ts';
import { describe } from './harness/program.ts';
import { mountsBelow } from './harness/daemon.ts';
import { expectNothingLeft, holdings } from './harness/leftovers.ts';
import { hostLinks, linkNames, makeHub, plug, refusalOf, sdk } from './harness/networks.ts';
import { suite } from './harness/peers.ts';
import { killProcess } from './harness/processes.ts';
import { eventually } from './harness/wait.ts';

const run = promisify(execFile);
const except = /^descriptor|^fifo .*\/fifo\//;
const bridge = { $case: 'bridge', value: {} } as const;

suite('networks', { peers: ['moord'] }, (rig) => {
  const pings = async (id: string, address: string): Promise<void> => {
    const outcome = await rig.ctr.exec(id, ['/bin/ping', '-c', '1', '-W', '5', address]);
    assert.equal(outcome.code, 0, describe(outcome));
  };

  const moor = async (...args: string[]): Promise<string> => {
    const globals = ['--address', rig.daemon.address, '--namespace', rig.ctr.namespace];
    const { stdout } = await run(join(import.meta.dirname, '../bin/moor'), [...globals, 'network', ...args]);
    return stdout;
  };

  const clear = async (client: Client): Promise<void> => {
    for (const { name } of await client.networks.list()) await client.networks.delete(name, { force: true });
  };

  it('two containers in two networks on a bridge reach each other, over kill -9 of the daemon too', async () => {
    const { ctr, daemon } = rig;
    const before = holdings(daemon);
    const links = hostLinks();
    let client = await sdk(daemon, ctr);
    await makeHub(client);
    for (const [name, address] of [
      ['one', '10.7.0.1/24'],
      ['two', '10.7.0.2/24'],
    ] as const) {
      const { path } = await client.networks.create(name);
      await plug(client, name, address);
      await ctr.runDetached(name, ['/bin/sleep', '1000'], ['--with-ns', `network:${path}`]);
    }
    await pings('one', '10.7.0.2');
    await pings('two', '10.7.0.1');

    await daemon.kill9();
    await daemon.start();
    client.close();
    client = await sdk(daemon, ctr);
    await pings('one', '10.7.0.2');
    assert.deepEqual(await linkNames(client, 'hub'), ['br0', 'p-one', 'p-two']);
    const { path } = await client.networks.create('three');
    await plug(client, 'three', '10.7.0.3/24');
    await ctr.runDetached('three', ['/bin/sleep', '1000'], ['--with-ns', `network:${path}`]);
    await pings('one', '10.7.0.3');
    // A container leaves a network as it was.
    await ctr.remove('two');
    await ctr.runDetached(
      'two',
      ['/bin/sleep', '1000'],
      ['--with-ns', `network:${(await client.networks.get('two')).path}`],
    );
    await pings('two', '10.7.0.3');

    for (const id of ['one', 'two', 'three']) await ctr.remove(id);
    for (const name of ['one', 'two', 'three', 'hub']) await client.networks.delete(name);
    client.close();
    await expectNothingLeft(daemon, before, { except });
    assert.deepEqual(hostLinks(), links);
  });

  it('a network in use is kept, and the user is named, unless removal is forced', async () => {
    using client = await sdk(rig.daemon, rig.ctr);
    const { path } = await client.networks.create('busy');
    await rig.ctr.runDetached('user', ['/bin/sleep', '1000'], ['--with-ns', `network:${path}`]);
    assert.equal(
      await refusalOf(client.networks.delete('busy')),
      '9 network "busy" is in use by container "user": failed precondition',
    );
    await rig.ctr.remove('user');
    const visitor = spawn('nsenter', [`--net=${path}`, 'sleep', '1000'], { stdio: 'ignore' });
    try {
      const there = `net:[${statSync(path).ino}]`;
      await eventually('it is there', () => readlinkSync(`/proc/${visitor.pid}/ns/net`) === there);
      assert.match(
        await refusalOf(client.networks.delete('busy')),
        /in use by process \d+ \((?:nsenter|sleep)\)/,
      );
      await client.networks.delete('busy', { force: true });
    } finally {
      await killProcess(visitor.pid!);
    }
    assert.equal(existsSync(path), false);
    assert.equal(await refusalOf(client.networks.get('busy')), '5 network "busy": not found');
  });

  it('networks of one namespace are not seen in another, and keep their namespace', async () => {
    using client = await sdk(rig.daemon, rig.ctr);
    const other = client.in(rig.daemon.ctr().namespace);
    await client.networks.create('same', { a: 'b' });
    await other.networks.create('same', { c: 'd' });
    await client.networks.addLink('same', 'br0', { kind: bridge });
    assert.deepEqual(await linkNames(other, 'same'), []);
    assert.deepEqual(await client.networks.list(['labels.c==d']), []);
    assert.equal((await client.networks.list(['labels.a==b', 'name==x'])).length, 1);
    assert.deepEqual((await client.networks.label('same', { a: '', e: 'f' })).labels, { e: 'f' });
    assert.match(await refusalOf(client.namespaces.delete(other.namespace)), /^9 .*still has networks/);
    await other.networks.delete('same');
    await client.namespaces.delete(other.namespace);
    assert.equal((await client.networks.get('same')).name, 'same');
    await clear(client);
  });

  it('links are made, changed, moved and removed', async () => {
    const links = hostLinks();
    using client = await sdk(rig.daemon, rig.ctr);
    const { networks } = client;
    await networks.create('left');
    await networks.create('right');
    const veth = {
      peerName: 'b',
      peerNetwork: 'right',
      peerSettings: { mtu: 1300, mac: '02:00:00:00:00:0B' },
    };
    const made = await networks.addLink('left', 'a', {
      mtu: 1400,
      up: true,
      kind: { $case: 'veth', value: veth },
    });
    assert.deepEqual([made.name, made.kind, made.mtu, made.up], ['a', 'veth', 1400, true]);
    const peer = await networks.link('right', 'b');
    assert.deepEqual(
      [peer.mtu, peer.mac, peer.up, peer.parentIndex],
      [1300, '02:00:00:00:00:0b', false, made.index],
    );
    await networks.addLink('right', 'br0', { kind: { $case: 'bridge', value: { stp: true } } });
    const changed = await networks.setLink('right', 'b', { up: true, master: 'br0', mtu: 1200 });
    assert.deepEqual([changed.up, changed.master, changed.mtu], [true, 'br0', 1200]);
    assert.equal((await networks.setLink('right', 'b', { master: '', up: false })).master, '');
    assert.equal((await networks.setLink('right', 'b', { newName: 'c' })).name, 'c');

    const child = { parent: 'a', parentNetwork: 'left', mode: 'private' };
    const macvlan = await networks.addLink('right', 'm', {
      up: true,
      kind: { $case: 'macvlan', value: child },
    });
    assert.deepEqual([macvlan.kind, macvlan.mode, macvlan.up], ['macvlan', 'private', true]);

    const name = `mt${process.pid}`;
    const moved = await networks.moveLink('right', 'c', 'host', { newName: name });
    assert.deepEqual([moved.name, moved.up], [name, false]);
    assert.ok(hostLinks().includes(name));
    assert.equal((await networks.moveLink('host', name, 'left', { newName: 'd' })).parent, 'a');
    await networks.deleteLink('left', 'd');
    assert.deepEqual(await linkNames(client, 'left'), [], 'the other end is gone, too');
    assert.deepEqual(await linkNames(client, 'right'), ['br0'], 'and what was on it');
    await clear(client);
    assert.deepEqual(hostLinks(), links);
  });

  it('addresses and routes are given and taken', async () => {
    using client = await sdk(rig.daemon, rig.ctr);
    const { networks } = client;
    await networks.create('n');
    await networks.addLink('n', 'br0', { up: true, kind: bridge });
    await networks.addAddress('n', 'br0', '10.8.0.1/24');
    await networks.addAddress('n', 'br0', 'fd08::1/64', { noDad: true });
    const { addresses } = await networks.link('n', 'br0');
    assert.deepEqual(
      addresses.map(({ address, scope }) => `${address} ${scope}`).filter((text) => text.endsWith('global')),
      ['10.8.0.1/24 global', 'fd08::1/64 global'],
    );
    await networks.addRoute('n', { destination: 'default', gateway: '10.8.0.254', metric: 7 });
    await networks.addRoute('n', { destination: '10.9.0.0/16', link: 'br0', source: '10.8.0.1' });
    await networks.addRoute('n', { destination: 'default', gateway: 'fd08::fe' });
    const routes = (await networks.routes('n')).filter(({ protocol }) => protocol === 'static');
    assert.deepEqual(
      routes.map((route) => [route.family, route.destination, route.gateway, route.source, route.metric]),
      [
        ['inet', 'default', '10.8.0.254', '', 7],
        ['inet', '10.9.0.0/16', '', '10.8.0.1', 0],
        ['inet6', 'default', 'fd08::fe', '', 1024],
      ],
    );
    await networks.deleteRoute('n', { destination: '10.9.0.0/16' });
    await networks.deleteRoute('n', { destination: 'default', family: 'inet6' });
    await networks.deleteAddress('n', 'br0', '10.8.0.1/24');
    assert.deepEqual(
      (await networks.routes('n')).filter(({ protocol }) => protocol === 'static'),
      [],
    );
    await clear(client);
  });

  it('what cannot be is refused with the right code and says why', async () => {
    using client = await sdk(rig.daemon, rig.ctr);
    const { networks } = client;
    await networks.create('n');
    await networks.addLink('n', 'br0', { up: true, kind: bridge });
    await networks.addLink('n', 'a', { kind: { $case: 'veth', value: { peerName: 'b' } } });
    const veth = (value: object) => ({ kind: { $case: 'veth', value } as const });
    const refused: [() => Promise<unknown>, RegExp][] = [
      [() => networks.create('n'), /^6 network "n": already exists$/],
      [() => networks.create('host'), /^3 network "host" is the one of the daemon/],
      [() => networks.create('../n'), /^3 network: identifier "..\/n" must match/],
      [() => networks.links('nope'), /^5 network "nope": not found$/],
      [() => networks.links(''), /^3 network: identifier must not be empty/],
      [() => networks.link('n', 'x'), /^5 .*link "x" is not there/],
      [() => networks.addLink('n', 'a-name-too-long-0', { kind: bridge }), /^3 .*longer than 15 characters/],
      [() => networks.addLink('n', '-x', { kind: bridge }), /^3 link "-x" must match/],
      [() => networks.addLink('n', 'x y', { kind: bridge }), /^3 link "x y" must match/],
      [() => networks.addLink('n', 'a', { kind: bridge }), /^6 .*a link of that name is there already/],
      [
        () => networks.addLink('n', 'x', veth({ peerName: 'a' })),
        /^6 .*a link of that name is there already/,
      ],
      [() => networks.addLink('n', 'x', veth({ peerName: 'x' })), /^3 .*cannot both be "x"/],
      [
        () => networks.addLink('n', 'x', veth({ peerName: 'y', peerNetwork: 'no' })),
        /^5 network "no": not found/,
      ],
      [
        () => networks.addLink('n', 'x', veth({ peerName: 'y', peerSettings: { master: 'no' } })),
        /^5 .*link "no" is not there/,
      ],
      [
        () => networks.addLink('n', 'x', veth({ peerName: 'y', peerSettings: { master: 'a' } })),
        /^9 .*"a" is no bridge/,
      ],
      [() => networks.addLink('n', 'x', { mtu: 1, kind: bridge }), /^3 mtu 1 is not between 68 and 65535/],
      [() => networks.addLink('n', 'x', { mac: '01:00:00:00:00:01', kind: bridge }), /^3 .*multicast/],
      [
        () => networks.addLink('n', 'x', { kind: { $case: 'macvlan', value: { parent: 'no' } } }),
        /^5 .*"no" is not/,
      ],
      [
        () => networks.addLink('n', 'x', { kind: { $case: 'macvlan', value: { parent: 'a', mode: 'odd' } } }),
        /^3 mode "odd" is none of bridge/,
      ],
      [
        () => networks.addLink('n', 'x', { kind: { $case: 'vlan', value: { parent: 'a', id: 4095 } } }),
        /^3 vlan id 4095/,
      ],
      [() => networks.setLink('n', 'a', {}), /^3 link "a": nothing to change/],
      [() => networks.setLink('n', 'x', { up: true }), /^5 cannot change link "x"/],
      [() => networks.setLink('n', 'a', { newName: 'b' }), /^6 .*a link of the new name/],
      [() => networks.moveLink('n', 'lo', 'host'), /^6 .*"lo" is there already/],
      [() => networks.moveLink('n', 'a', 'n'), /^3 link "a" is in network "n"/],
      [() => networks.deleteLink('n', 'lo'), /^9 .*it is not virtual/],
      [() => networks.addAddress('n', 'a', '10.0.0.1'), /^3 "10.0.0.1" is no address/],
      [() => networks.addAddress('n', 'a', '10.0.0.1/33'), /^3 "10.0.0.1\/33" is no address/],
      [() => networks.addAddress('n', 'lo', '127.0.0.1/8'), /^6 .*already exists/],
      [() => networks.deleteAddress('n', 'a', '10.0.0.1/24'), /^5 .*not found/],
      [
        () => networks.addRoute('n', { destination: 'default', gateway: '10.0.0.9' }),
        /^9 .*reaches the gateway/,
      ],
      [() => networks.addRoute('n', { destination: 'default' }), /^3 a route needs a gateway or a link/],
      [() => networks.addRoute('n', { destination: 'fd00::/8', gateway: '10.0.0.9' }), /^3 .*not of both/],
      [
        () => networks.addRoute('n', { destination: '10.1.2.3/8', link: 'br0' }),
        /^3 .*bits beyond its prefix/,
      ],
      [() => networks.deleteRoute('n', { destination: '10.1.0.0/16' }), /^5 .*not found/],
    ];
    for (const [call, words] of refused) assert.match(await refusalOf(call()), words);
    // What the kernel refuses in the middle leaves what was before.
    assert.match(await refusalOf(networks.setLink('n', 'a', { mtu: 1000, master: 'b' })), /^9 /);
    assert.equal((await networks.link('n', 'a')).mtu, 1500);
    assert.deepEqual((await linkNames(client, 'n')).sort(), ['a', 'b', 'br0']);
    await clear(client);
  });

  it('a kind of link that the kernel does not have is told from other failures', async (context) => {
    using client = await sdk(rig.daemon, rig.ctr);
    await client.networks.create('n');
    await client.networks.addLink('n', 'br0', { kind: bridge });
    const kinds: LinkKind[] = [
      { $case: 'dummy', value: {} },
      { $case: 'ipvlan', value: { parent: 'br0' } },
      { $case: 'vlan', value: { parent: 'br0', id: 5 } },
    ];
    for (const kind of kinds) {
      try {
        const link = await client.networks.addLink('n', kind.$case, { kind });
        assert.equal(link.kind, kind.$case);
      } catch (error) {
        const { message } = error as Error;
        context.diagnostic(message);
        assert.ok(message.endsWith(`this kernel has no links of kind ${kind.$case}`), message);
      }
    }
    await clear(client);
  });

  it('each change is an event', async () => {
    using client = await sdk(rig.daemon, rig.ctr);
    const abort = new AbortController();
    const seen: string[] = [];
    const events = client.events([`topic~=^/moor/,namespace==${client.namespace}`], { signal: abort.signal });
    const reading = (async () => {
      for await (const { topic, message } of events) seen.push(`${topic} ${JSON.stringify(message)}`);
    })();
    const filtered = client.events(['event.name==e2'], { signal: abort.signal })[Symbol.asyncIterator]();
    const first = filtered.next();
    await eventually('the subscription stands', async () => {
      await client.networks.create('probe');
      await client.networks.delete('probe');
      return seen.length > 0;
    });
    const { path } = await client.networks.create('e1');
    await client.networks.create('e2');
    await client.networks.addLink('e1', 'a', { kind: { $case: 'veth', value: { peerName: 'b' } } });
    await client.networks.setLink('e1', 'a', { mtu: 1000 });
    await client.networks.moveLink('e1', 'b', 'e2');
    await client.networks.deleteLink('e1', 'a');
    await client.networks.delete('e1');
    await client.networks.delete('e2');
    await eventually('the last event is seen', () => seen.at(-1)?.includes('"e2"'));
    assert.deepEqual(
      seen.filter((line) => !line.includes('probe')),
      [
        `/moor/network/create {"name":"e1","path":"${path}","labels":{}}`,
        `/moor/network/create {"name":"e2","path":"${path.replace(/e1$/, 'e2')}","labels":{}}`,
        '/moor/network/link/create {"network":"e1","name":"a","kind":"veth"}',
        '/moor/network/link/create {"network":"e1","name":"b","kind":"veth"}',
        '/moor/network/link/update {"network":"e1","name":"a"}',
        '/moor/network/link/move {"network":"e1","name":"b","targetNetwork":"e2","newName":"b"}',
        '/moor/network/link/delete {"network":"e1","name":"a"}',
        '/moor/network/delete {"name":"e1"}',
        '/moor/network/delete {"name":"e2"}',
      ],
    );
    assert.equal((await first).value?.topic, '/moor/network/create', 'filters look into the event');
    abort.abort();
    await reading;
  });

  it('after a reboot no network is shown, and its name is free', async () => {
    let client = await sdk(rig.daemon, rig.ctr);
    const { path } = await client.networks.create('gone');
    await client.networks.create('torn');
    client.close();
    await rig.daemon.kill9();
    for (const mount of mountsBelow(join(rig.daemon.state, 'netns'))) execFileSync('umount', [mount]);
    rmSync(join(rig.daemon.state, 'netns'), { recursive: true });
    await rig.daemon.start();
    client = await sdk(rig.daemon, rig.ctr);
    assert.deepEqual(await client.networks.list(), []);
    assert.equal((await client.networks.create('gone')).path, path);
    await clear(client);
    client.close();
  });

  it('the command line does it all', async () => {
    const before = holdings(rig.daemon);
    const path = (await moor('create', 'cli', 'a=b')).trim();
    assert.match(await moor('ls'), new RegExp(`^NAME +PATH +LABELS\ncli +${path} +a=b\n$`));
    assert.equal(await moor('ls', '-q'), 'cli\n');
    await moor('create', 'other');
    await moor('link', 'add', 'other', 'br0', 'bridge', '--up');
    const pair = [
      'link',
      'add',
      'cli',
      'eth0',
      'veth',
      '--up',
      '--peer',
      'p0',
      '--peer-network',
      'other',
      '--peer-master',
      'br0',
      '--peer-up',
      '--format',
      'json',
    ];
    const added = await moor(...pair);
    assert.equal((JSON.parse(added) as { name: string }[])[0]?.name, 'eth0');
    await moor('address', 'add', 'cli', 'eth0', '10.6.0.2/24');
    assert.match(await moor('address', 'ls', 'cli', 'eth0'), /eth0 +10\.6\.0\.2\/24 +global +10\.6\.0\.255/);
    await moor('route', 'add', 'cli', 'default', '--via', '10.6.0.1');
    assert.match(await moor('route', 'ls', 'cli'), /default +10\.6\.0\.1 +eth0/);
    await moor('route', 'rm', 'cli', 'default');
    await moor('address', 'rm', 'cli', 'eth0', '10.6.0.2/24');
    await moor('link', 'set', 'cli', 'eth0', '--mtu', '1300', '--down', '--name', 'net0');
    assert.match(await moor('link', 'ls', 'cli'), /net0 +veth +off +1300/);
    await moor('link', 'move', 'cli', 'net0', 'other', '--name', 'net1');
    assert.equal((await moor('link', 'ls', '-q', 'other')).split('\n').sort().join(' '), ' br0 lo net1 p0');
    const inspected = JSON.parse(await moor('inspect', 'other')) as Record<string, unknown[]>;
    assert.equal(inspected['links']?.length, 4);
    await moor('link', 'rm', 'other', 'net1', 'br0');
    await assert.rejects(moor('link', 'add', 'cli', 'x', 'bridge', '--parent', 'y'), /--parent is not for/);
    await assert.rejects(moor('link', 'add', 'cli', 'x', 'vlan', '--parent', 'y'), /need --id/);
    assert.equal(await moor('rm', 'cli', 'other'), 'cli\nother\n');
    await expectNothingLeft(rig.daemon, before, { except });
  });
});
