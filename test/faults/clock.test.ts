/**
 * The clock is set back by a day under a running daemon, and on again: nothing waits for the day to come, and what goes by the time of
 * day does. Only this daemon sees that (libfaketime): the host's clock is others' too.
 */
import assert from 'node:assert/strict';
import { globSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, it } from 'node:test';
import { LeasesDefinition } from '../../proto/gen/containerd/services/leases.ts';
import { EventStream } from '../harness/events.ts';
import { suite } from '../harness/peers.ts';
import { killProcess } from '../harness/processes.ts';
import { describe } from '../harness/program.ts';
import { eventually } from '../harness/wait.ts';

const HOUR = 3_600_000;

const folder = mkdtempSync('/tmp/mt-');
after(() => rmSync(folder, { recursive: true, force: true }));
const offset = join(folder, 'offset');
/** Sets the daemon's clock, by so much from the right time: `-1d`. */
const set = (by: string) => writeFileSync(offset, `${by}\n`);
set('+0');

const [library = 'libfaketime is not installed'] = globSync('/usr/lib/*/faketime/libfaketimeMT.so.1');
const env = {
  LD_PRELOAD: library,
  FAKETIME_TIMESTAMP_FILE: offset,
  FAKETIME_NO_CACHE: '1',
  FAKETIME_DONT_FAKE_MONOTONIC: '1',
};
const config = '[plugins."io.containerd.internal.v1.restart"]\ninterval = "1s"\n';

suite('a clock that is set back', { peers: ['moord'], env, config }, (rig) => {
  afterEach(() => set('+0'));

  /** What the daemon takes for now, as a lease tells that it makes. */
  const now = async (): Promise<number> => {
    using connection = rig.daemon.connect();
    const leases = connection.service(LeasesDefinition, rig.ctr.namespace);
    const { lease } = await leases.create({ id: 'clock' });
    await leases.delete({ id: 'clock' });
    return Number(lease!.createdAt!.seconds) * 1000;
  };

  it('containers go on, and every step is told in order', async () => {
    const { ctr, daemon } = rig;
    await ctr.runDetached('keeper', ['/bin/sleep', '1000']);
    using stream = EventStream.follow(daemon, ctr.namespace);
    await eventually('the subscription stands', async () => {
      await ctr.ok('containers', 'label', 'keeper', 'a=b');
      return stream.seen.length > 0;
    });
    const waiting = ctr.run('other', ['/bin/sh', '-c', 'sleep 1; exit 7'], ['--rm']);
    await eventually('it runs', async () => (await ctr.task('other'))?.status === 'RUNNING');
    set('-1d');
    assert.ok((await now()) < Date.now() - 23 * HOUR, 'the clock is not set back');
    assert.equal((await waiting).code, 7);
    const outcome = await ctr.run('again', ['/bin/echo', 'again'], ['--rm']);
    assert.equal(outcome.stdout, 'again\n', describe(outcome));
    assert.equal((await ctr.exec('keeper', ['/bin/echo', 'here'])).stdout, 'here\n');
    for (const id of ['other', 'again']) {
      const told = await eventually('its end is told', () => {
        const topics = stream.of(id).map(({ topic }) => topic);
        return topics.includes('/tasks/delete') && topics.filter((topic) => topic.startsWith('/tasks/'));
      });
      assert.deepEqual(told, ['/tasks/create', '/tasks/start', '/tasks/exit', '/tasks/delete']);
    }
  });

  it('the next daemon finds what runs, and a call that was cut off can be repeated', async () => {
    const { ctr, daemon } = rig;
    set('-1d');
    await daemon.restart();
    assert.equal((await ctr.task('keeper'))?.status, 'RUNNING');
    assert.equal((await ctr.exec('keeper', ['/bin/echo', 'here'])).stdout, 'here\n');
    await ctr.remove('keeper');
    assert.equal((await ctr.tasks()).size, 0);
  });

  it('a container that is to be kept up is, though it was made tomorrow', async () => {
    const { ctr } = rig;
    const runs = async () => {
      const task = await ctr.task('kept');
      return task?.status === 'RUNNING' && task.pid;
    };
    await ctr.create('kept', ['/bin/sleep', '1000'], ['--label', 'containerd.io/restart.status=running']);
    set('-1d');
    const first = await eventually('it is started', runs);
    await killProcess(first);
    await eventually('it is started again', async () => {
      const pid = await runs();
      return pid !== first && pid;
    });
    await ctr.ok('containers', 'label', 'kept', 'containerd.io/restart.status=');
    await ctr.remove('kept');
  });

  it('what has a time to expire at expires then, and not before', async () => {
    const { ctr, daemon } = rig;
    using connection = daemon.connect();
    const leases = connection.service(LeasesDefinition, ctr.namespace);
    const expire = new Date(Date.now() + HOUR).toISOString();
    const isThere = async () => {
      await leases.create({ id: 'passing' });
      await leases.delete({ id: 'passing', sync: true });
      return (await leases.list({})).leases.some(({ id }) => id === 'mortal');
    };
    set('-1d');
    await leases.create({ id: 'mortal', labels: { 'containerd.io/gc.expire': expire } });
    assert.ok(await isThere(), 'a day before');
    set('+1d');
    assert.ok(!(await isThere()), 'a day after');
  });
});
