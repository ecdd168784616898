/** The program of docs/embedding.md works. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { busyboxImage, ociArchive } from './harness/image.ts';
import { expectNothingLeft, holdings } from './harness/leftovers.ts';
import { suite } from './harness/peers.ts';
import { expectNothingStored } from './harness/stored.ts';

const repository = join(import.meta.dirname, '..');

suite('the page on embedding', { peers: ['moord'] }, (rig) => {
  const job = (...args: string[]) =>
    new Promise<{ code: number | null; stdout: string; stderr: string }>((resolve) => {
      const program = join(repository, 'docs/examples/job.ts');
      const env = { ...process.env, MOOR_ADDRESS: rig.daemon.address };
      const child = execFile(
        process.execPath,
        [program, ...args],
        { env, timeout: 60_000 },
        (_, stdout, stderr) => resolve({ code: child.exitCode, stdout, stderr }),
      );
    });

  it('its program runs a command of an image, and leaves nothing', async () => {
    const ctr = rig.daemon.ctr('jobs');
    const archive = ociArchive(join(rig.daemon.directory, 'job.tar'), [
      ['example.com/job:1'],
      await busyboxImage(),
    ]);
    const before = holdings(rig.daemon);
    const outcome = await job(archive, 'sh', '-c', 'echo from inside; sleep 2; exit 7');
    assert.equal(outcome.code, 7, outcome.stderr);
    assert.equal(outcome.stdout, 'from inside\n');
    assert.match(outcome.stderr, /^exec says \S+$/m);
    for (const topic of ['create', 'start', 'exec-added', 'exit', 'delete'])
      assert.match(outcome.stderr, new RegExp(`^event /tasks/${topic}$`, 'm'));
    await expectNothingStored(rig.daemon, ctr);
    await expectNothingLeft(rig.daemon, before, { except: /^descriptor|^process/ });
  });

  it('its program says what is wrong', async () => {
    const outcome = await job('not a reference', 'true');
    assert.equal(outcome.code, 1);
    assert.match(outcome.stderr, /^job: .*not a reference/);
  });

  it('its links lead somewhere', () => {
    const page = readFileSync(join(repository, 'docs/embedding.md'), 'utf8');
    for (const [, link] of page.matchAll(/\]\((?!http)([^)#]+)/g))
      assert.ok(readFileSync(join(repository, 'docs', link!)).length > 0);
  });
});
