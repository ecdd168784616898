/** kill -9 of the daemon at every step of a sandbox's life: what was half-made is undone, what was half-removed is removed. */
import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { after, before, it } from 'node:test';
import type { SandboxStep } from '../daemon/failpoint.ts';
import { Code } from '../ttrpc/errors.ts';
import { expectNothingLeft, type Holdings, holdings } from './harness/leftovers.ts';
import { suite } from './harness/peers.ts';
import { failureOf } from './harness/rpc.ts';
import { OWN_RUNTIME, SandboxClient, StandIn } from './harness/sandboxes.ts';

const points = `/tmp/moor-sandbox-points-${process.pid}`;
const LEFT = { within: 60_000, except: /stand-in/ };

/** With Moor's own shim, which is quick, at every step; with another's at those where it is there. */
const creating = {
  own: ['sandbox-bundle-made', 'sandbox-shim-started', 'sandbox-created', 'sandbox-recorded'],
  foreign: ['sandbox-shim-started', 'sandbox-created'],
} as const;
const removing = {
  own: ['sandbox-doomed', 'sandbox-shut-down', 'sandbox-shim-gone'],
  foreign: ['sandbox-doomed', 'sandbox-shut-down'],
} as const;

suite(
  'sandboxes and kill -9 of the daemon',
  { peers: ['moord'], env: { MOOR_FAILPOINTS: points }, timeout: 390_000 },
  (rig) => {
    let client: SandboxClient;
    let standIn: StandIn;
    let nothing: Holdings;
    before(() => {
      writeFileSync(points, '');
      client = new SandboxClient(rig.daemon, rig.ctr);
      standIn = new StandIn(rig.daemon);
      nothing = holdings(rig.daemon);
    });
    after(() => {
      client[Symbol.dispose]();
      rmSync(points, { force: true });
    });

    /** Kills the daemon at a step of what is called, and starts it again. */
    const killedAt = async (step: SandboxStep, call: () => Promise<unknown>): Promise<void> => {
      writeFileSync(points, `${step}=kill`);
      const failure = await failureOf(call());
      assert.equal(failure.code, Code.Unavailable, `${step}: ${failure.message}`);
      await rig.daemon.ended();
      writeFileSync(points, '');
      await rig.daemon.start();
    };

    for (const kind of ['own', 'foreign'] as const) {
      const make = kind === 'own' ? 'Moor’s own' : 'another make';
      const runtime = () => (kind === 'own' ? OWN_RUNTIME : standIn.binary);

      it(`a creation with a shim of ${make} that is cut off can be repeated, or is told to be done`, async () => {
        for (const step of creating[kind]) {
          await killedAt(step, () => client.create('made', runtime()));
          const again = await client.create('made', runtime()).catch((error: { code: number }) => error.code);
          const done = step === 'sandbox-recorded';
          assert.equal(again, done ? Code.AlreadyExists : undefined, step);
          await client.shutdown('made');
          await expectNothingLeft(rig.daemon, nothing, LEFT);
        }
      });

      it(`starts and stops with a shim of ${make} that are cut off are told to be done`, async () => {
        await client.create('cut', runtime(), { exit: '3' });
        await killedAt('sandbox-started', () => client.start('cut'));
        const again = await failureOf(client.start('cut'));
        assert.match(again.message, /sandbox cut has been started/);
        assert.equal((await client.status('cut')).state, 'SANDBOX_READY');
        await killedAt('sandbox-stopped', () => client.stop('cut'));
        await client.stop('cut');
        const end = await client.wait('cut');
        assert.equal(end.exitStatus, kind === 'own' ? 0 : 3);
        await client.shutdown('cut');
        await expectNothingLeft(rig.daemon, nothing, LEFT);
      });

      it(`a removal with a shim of ${make} that is cut off is finished`, async () => {
        for (const step of removing[kind]) {
          await client.create('gone', runtime());
          await client.start('gone');
          await killedAt(step, () => client.shutdown('gone'));
          assert.equal((await failureOf(client.shutdown('gone'))).code, Code.NotFound, step);
          await expectNothingLeft(rig.daemon, nothing, LEFT);
        }
      });
    }

    it('an end that is cut off while it is told is told by the next daemon', async () => {
      await client.create('told', standIn.binary, { exit: '5' });
      await client.start('told');
      const waited = client.wait('told').catch(() => undefined);
      await killedAt('sandbox-ended', () => client.stop('told'));
      await waited;
      assert.equal((await client.wait('told')).exitStatus, 5);
      await client.shutdown('told');
      await expectNothingLeft(rig.daemon, nothing, LEFT);
    });
  },
);
