/** What docs/network.md tells operators to type works. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { expectNothingLeft, holdings } from './harness/leftovers.ts';
import { suite } from './harness/peers.ts';
import { sharedRootfs } from './harness/rootfs.ts';

const repository = join(import.meta.dirname, '..');

suite('the page on networks', { peers: ['moord'] }, (rig) => {
  it('its example works from the first line to the last', async () => {
    const page = readFileSync(join(repository, 'docs/network.md'), 'utf8');
    const blocks = [...page.matchAll(/^```sh\n(.*?)^```/gms)].map(([, block]) => block!);
    assert.ok(blocks.length >= 3);
    const before = holdings(rig.daemon);
    const shell = (script: string): string => {
      const env = {
        ...process.env,
        PATH: `${join(repository, 'bin')}:${process.env['PATH']}`,
        MOOR_ADDRESS: rig.daemon.address,
        MOOR_NAMESPACE: rig.ctr.namespace,
        ROOTFS: sharedRootfs(),
      };
      const { status, stdout, stderr } = spawnSync('bash', ['-euc', script], {
        env,
        encoding: 'utf8',
        timeout: 120_000,
      });
      assert.equal(status, 0, `${script}\n${stderr}`);
      return stdout;
    };
    // Another network in the place of the host's, which is not for tests to change.
    shell('moor network create world');
    const [make, clean, look] = blocks.map((block) => block.replaceAll(/\bhost\b/g, 'world'));
    assert.match(shell(make!), /1 packets received, 0% packet loss/);
    assert.match(shell(look!), /moor0/);
    await rig.daemon.restart();
    assert.match(shell(make!.trimEnd().split('\n').at(-1)!), /1 packets received, 0% packet loss/);
    shell(clean!);
    shell('moor network rm world');
    await expectNothingLeft(rig.daemon, before, { except: /^descriptor|^fifo/ });
  });
});
