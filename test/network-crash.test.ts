/** Networks and a daemon that is killed with -9: at every step of making and removing, and at random moments. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { Client } from '../client/client.ts';
import { mountsBelow } from './harness/daemon.ts';
import { expectNothingLeft, holdings } from './harness/leftovers.ts';
import { hostLinks, linkNames, makeHub, plug, refusalOf, sdk } from './harness/networks.ts';
import { suite } from './harness/peers.ts';
import { alive } from './harness/processes.ts';
import { seeded } from './harness/seed.ts';
import { eventually } from './harness/wait.ts';

const rounds = Number(process.env['TEST_ROUNDS'] ?? 12);
const except = /^descriptor/;

suite('networks and a daemon that is killed', { peers: ['moord'] }, (rig) => {
  /** Restarts the daemon with a fail point, has it die of the action, and starts it again. */
  const killedAt = async (step: string, action: (client: Client) => Promise<unknown>): Promise<void> => {
    await rig.daemon.terminate();
    process.env['MOOR_FAILPOINTS'] = `${step}=kill`;
    try {
      await rig.daemon.start();
    } finally {
      delete process.env['MOOR_FAILPOINTS'];
    }
    const { pid } = rig.daemon;
    using client = await sdk(rig.daemon, rig.ctr);
    assert.match(await refusalOf(action(client)), /^14 /, `the call is cut off at ${step}`);
    await eventually('the daemon has died', () => !alive(pid));
    await rig.daemon.start();
  };

  /** What is shown is what is there: every network has its file, and no file is without a network. */
  const isTruthful = async (client: Client): Promise<void> => {
    const shown = (await client.networks.list()).map(({ path }) => path);
    const folder = join(rig.daemon.state, 'netns', client.namespace);
    const files = existsSync(folder) ? readdirSync(folder).map((name) => join(folder, name)) : [];
    assert.deepEqual(files.sort(), [...shown].sort());
    assert.deepEqual(mountsBelow(folder).sort(), [...shown].sort());
  };

  const clear = async (client: Client): Promise<void> => {
    for (const { name } of await client.networks.list()) await client.networks.delete(name);
    await isTruthful(client);
    assert.doesNotMatch(readFileSync(rig.daemon.log, 'utf8'), /cannot remove a link/);
  };

  for (const step of ['network-recorded', 'network-made']) {
    it(`while it makes a network (${step}): it is not there, and can be made`, async () => {
      const before = holdings(rig.daemon);
      await killedAt(step, (client) => client.networks.create('n'));
      using client = await sdk(rig.daemon, rig.ctr);
      assert.equal(await refusalOf(client.networks.get('n')), '5 network "n": not found');
      await isTruthful(client);
      await client.networks.create('n');
      await clear(client);
      await expectNothingLeft(rig.daemon, before, { except });
    });
  }

  for (const step of ['network-doomed', 'network-removed']) {
    it(`while it removes a network (${step}): it is gone, and so are its links`, async () => {
      const before = holdings(rig.daemon);
      {
        using client = await sdk(rig.daemon, rig.ctr);
        await makeHub(client);
        await client.networks.create('n');
        await plug(client, 'n', '10.5.0.1/24');
      }
      await killedAt(step, (client) => client.networks.delete('n'));
      using client = await sdk(rig.daemon, rig.ctr);
      assert.equal(await refusalOf(client.networks.get('n')), '5 network "n": not found');
      // The kernel takes a network namespace down in its own time.
      await eventually(
        'the other end is gone',
        async () => (await linkNames(client, 'hub')).join() === 'br0',
      );
      await clear(client);
      await expectNothingLeft(rig.daemon, before, { except });
    });
  }

  for (const [step, isThere] of [
    ['link-recorded', false],
    ['link-made', false],
    ['link-configured', false],
    ['link-done', true],
  ] as const) {
    it(`while it makes a pair (${step}): ${isThere ? 'both ends are' : 'neither end is'} there`, async () => {
      const links = hostLinks();
      const before = holdings(rig.daemon);
      {
        using client = await sdk(rig.daemon, rig.ctr);
        await makeHub(client);
        await client.networks.create('n');
        // One that is there already is not taken for the one that was being made.
        await client.networks.addLink('n', 'bystander', { kind: { $case: 'bridge', value: {} } });
      }
      await killedAt(step, (client) => plug(client, 'n', '10.5.0.1/24'));
      using client = await sdk(rig.daemon, rig.ctr);
      assert.deepEqual(await linkNames(client, 'n'), isThere ? ['bystander', 'eth0'] : ['bystander']);
      assert.deepEqual(await linkNames(client, 'hub'), isThere ? ['br0', 'p-n'] : ['br0']);
      if (isThere) {
        const { master, up } = await client.networks.link('hub', 'p-n');
        assert.deepEqual([master, up], ['br0', true]);
        await client.networks.deleteLink('hub', 'p-n');
      }
      await plug(client, 'n', '10.5.0.1/24');
      await clear(client);
      await expectNothingLeft(rig.daemon, before, { except });
      assert.deepEqual(hostLinks(), links);
    });
  }

  it('a step that fails is undone at once', async () => {
    await rig.daemon.terminate();
    process.env['MOOR_FAILPOINTS'] = 'network-made=fail,link-configured=fail';
    try {
      await rig.daemon.start();
    } finally {
      delete process.env['MOOR_FAILPOINTS'];
    }
    using client = await sdk(rig.daemon, rig.ctr);
    assert.match(await refusalOf(client.networks.create('n')), /^13 failed at network-made/);
    await isTruthful(client);
    const name = `mf${process.pid}`;
    const value = { peerName: `${name}p`, peerSettings: { up: true } };
    const veth = { $case: 'veth', value } as const;
    assert.match(
      await refusalOf(client.networks.addLink('host', name, { kind: veth })),
      /^13 failed at link-conf/,
    );
    assert.deepEqual(
      hostLinks().filter((link) => link.startsWith(name)),
      [],
    );
    await rig.daemon.restart();
  });

  it(
    'at random: every pair is whole, every network works or is not there',
    { timeout: 180_000 },
    async (context) => {
      const seed = seeded(context);
      const links = hostLinks();
      const before = holdings(rig.daemon);
      {
        using client = await sdk(rig.daemon, rig.ctr);
        await makeHub(client);
      }
      for (let round = 0; round < rounds; round += 1) {
        const name = `n${round}`;
        const moment = seed.next(150);
        using cut = await sdk(rig.daemon, rig.ctr);
        const call = (async () => {
          await cut.networks.create(name);
          await plug(cut, name, '10.5.0.1/24');
          await cut.networks.deleteLink('hub', `p-${name}`);
          await cut.networks.delete(name);
        })().then(
          () => 'done',
          (error: Error) => error.message,
        );
        await delay(moment);
        await rig.daemon.kill9();
        const answer = await call;
        await rig.daemon.start();
        using client = await sdk(rig.daemon, rig.ctr);
        const note = `round ${round}, killed after ${moment.toFixed(1)} ms: ${answer}`;
        await isTruthful(client);
        const there = (await client.networks.list([`name==${name}`])).length === 1;
        await eventually(note, async () => {
          const near = there ? (await linkNames(client, name)).includes('eth0') : false;
          const far = (await linkNames(client, 'hub')).includes(`p-${name}`);
          return near === far;
        });
        if (there) await client.networks.delete(name);
        await client.networks.create(name);
        await eventually(`${note}; the name of the link is free`, async () => {
          await plug(client, name, '10.5.0.1/24');
          return true;
        });
        await client.networks.delete(name);
      }
      using client = await sdk(rig.daemon, rig.ctr);
      await clear(client);
      await expectNothingLeft(rig.daemon, before, { except });
      assert.deepEqual(hostLinks(), links);
    },
  );
});
