/** Containers that their labels keep up: over their own ends, and over the daemon's. */
import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { Ctr } from './harness/ctr.ts';
import { containerPids } from './harness/daemon.ts';
import { expectNothingLeft, holdings } from './harness/leftovers.ts';
import { Moor } from './harness/moor.ts';
import { type Rig, suite } from './harness/peers.ts';
import { alive, killProcess } from './harness/processes.ts';
import { sharedRootfs } from './harness/rootfs.ts';
import { eventually } from './harness/wait.ts';

const PREFIX = 'containerd.io/restart';
const label = (name: string, value: string) => ['--label', `${PREFIX}.${name}=${value}`];
const running = label('status', 'running');

const SECONDS = 20_000;

async function pidOf(ctr: Ctr, id: string): Promise<number> {
  const task = await ctr.task(id);
  return task?.status === 'RUNNING' ? task.pid : 0;
}

/** The pid of a container that runs as another process than `before`. */
const replaced = (ctr: Ctr, id: string, before: number) =>
  eventually(
    `${id} runs again`,
    async () => {
      const pid = await pidOf(ctr, id);
      return pid !== before && pid;
    },
    { within: SECONDS },
  );

const stopped = (ctr: Ctr, id: string) =>
  eventually(`${id} is stopped`, async () => (await ctr.task(id))?.status === 'STOPPED');

async function labelsOf(ctr: Ctr, id: string): Promise<Record<string, string>> {
  const info = JSON.parse(await ctr.ok('containers', 'info', id)) as { Labels: Record<string, string> };
  return info.Labels;
}

/** How often the command of `counting` has been run. */
const runs = (rig: Rig, name: string): number => {
  const file = join(sharedRootfs(), 'tmp', `${rig.peer}-${name}`);
  return existsSync(file) ? readFileSync(file, 'utf8').length : 0;
};
const counting = (rig: Rig, name: string, rest: string) => [
  '/bin/sh',
  '-c',
  `printf x >>/tmp/${rig.peer}-${name}; ${rest}`,
];

async function withdrawn(rig: Rig, ...ids: string[]): Promise<void> {
  for (const id of ids) {
    await rig.ctr.ok('containers', 'label', id, `${PREFIX}.status=`);
    await rig.ctr.remove(id);
  }
}

const config = '[plugins."io.containerd.internal.v1.restart"]\ninterval = "1s"\n';

suite('restart labels', { config }, (rig) => {
  it('a killed container runs again, and its output goes on in the log', async () => {
    const { ctr, daemon } = rig;
    const log = join(daemon.directory, 'kept.log');
    const flags = [...running, ...label('loguri', `file://${log}`)];
    await ctr.runDetached('kept', counting(rig, 'kept', 'echo here; exec sleep 1000'), flags);
    const first = await pidOf(ctr, 'kept');
    await eventually('the first life has begun', () => runs(rig, 'kept') === 1);
    await killProcess(first);
    const second = await replaced(ctr, 'kept', first);
    await eventually('the second life is in the log', () => readFileSync(log, 'utf8') === 'here\n');
    assert.ok(alive(second));
    assert.equal(runs(rig, 'kept'), 2);
    await withdrawn(rig, 'kept');
  });

  it('a label stops a container, and lets another start it', async () => {
    const { ctr } = rig;
    await ctr.runDetached('told', ['/bin/sleep', '1000'], running);
    const first = await pidOf(ctr, 'told');
    await ctr.ok('containers', 'label', 'told', `${PREFIX}.status=stopped`);
    await eventually('it is stopped', () => !alive(first), { within: SECONDS });
    await eventually('its task is deleted', async () => (await ctr.task('told')) === undefined);
    await ctr.ok('containers', 'label', 'told', `${PREFIX}.status=running`);
    assert.ok(alive(await replaced(ctr, 'told', 0)));
    await withdrawn(rig, 'told');
  });

  it('what ended while the daemon was dead runs again with the next one; what ran is left alone', async () => {
    const { ctr, daemon } = rig;
    await ctr.runDetached('ended', ['/bin/sleep', '1000'], running);
    await ctr.runDetached('ran', ['/bin/sleep', '1000'], running);
    await ctr.runDetached('other', ['/bin/sleep', '1000']);
    const [ended, ran, other] = await Promise.all(['ended', 'ran', 'other'].map((id) => pidOf(ctr, id)));
    await daemon.kill9();
    await killProcess(ended!);
    await killProcess(other!);
    await daemon.start();
    assert.ok(alive(await replaced(ctr, 'ended', ended!)));
    assert.equal(await pidOf(ctr, 'ran'), ran);
    assert.equal((await ctr.task('other'))?.status, 'STOPPED');
    await withdrawn(rig, 'ended', 'ran');
    await ctr.remove('other');
  });
});

suite('restart policies', { config, peers: ['moord'] }, (rig) => {
  it('waits longer each time a container ends at once, and tells so', async () => {
    const { ctr } = rig;
    await ctr.runDetached('brief', counting(rig, 'brief', 'exit 3'), running);
    await eventually('it has been started five times', () => runs(rig, 'brief') >= 5, { within: SECONDS });
    const labels = await eventually('the wait is told', async () => {
      const seen = await labelsOf(ctr, 'brief');
      return Number(seen[`${PREFIX}.count`]) >= 4 && seen;
    });
    assert.match(labels['moor.restart.delay'] ?? '', /^(?:800|1600|3200)ms$/);
    await withdrawn(rig, 'brief');
    const count = runs(rig, 'brief');
    await delay(500);
    assert.equal(runs(rig, 'brief'), count, 'nobody revives a container that is gone');
  });

  it('on-failure starts what failed, as often as it says, also over kill -9', async () => {
    const { ctr, daemon } = rig;
    const policy = (text: string) => [...running, ...label('policy', text)];
    await ctr.runDetached('failing', counting(rig, 'failing', 'exit 1'), policy('on-failure:3'));
    await ctr.runDetached('well', counting(rig, 'well', 'exit 0'), policy('on-failure'));
    await eventually('the first retry', () => runs(rig, 'failing') >= 2, { within: SECONDS });
    await daemon.restart();
    await eventually('the last retry', () => runs(rig, 'failing') === 4, { within: SECONDS });
    await stopped(ctr, 'failing');
    await delay(1500);
    assert.equal(runs(rig, 'failing'), 4);
    assert.equal((await labelsOf(ctr, 'failing'))[`${PREFIX}.count`], '3');
    assert.equal(runs(rig, 'well'), 1);
    assert.equal((await ctr.task('failing'))?.status, 'STOPPED');
    await withdrawn(rig, 'failing', 'well');
  });

  it('an impossible start is tried again later, and leaves nothing', async () => {
    const { ctr, daemon } = rig;
    const log = join(daemon.directory, 'logger');
    const logger = (text: string) => {
      writeFileSync(log, text);
      chmodSync(log, 0o755);
    };
    const flags = [...running, ...label('loguri', `binary://${log}`)];
    await ctr.runDetached('logged', ['/bin/sleep', '1000'], flags);
    await killProcess(await pidOf(ctr, 'logged'));
    await eventually('it has been tried', async () => {
      return (await labelsOf(ctr, 'logged'))['moor.restart.pending'] === 'failed';
    });
    assert.equal(await ctr.task('logged'), undefined);
    logger('#!/bin/sh\nexec 5>&-\ncat <&3 >/dev/null\n');
    assert.ok(alive(await replaced(ctr, 'logged', 0)));
    assert.equal((await labelsOf(ctr, 'logged'))['moor.restart.pending'], undefined);
    await withdrawn(rig, 'logged');
  });

  it('a paused container is a running one', async () => {
    const { ctr } = rig;
    await ctr.runDetached('iced', ['/bin/sleep', '1000'], running);
    const pid = await pidOf(ctr, 'iced');
    await ctr.ok('tasks', 'pause', 'iced');
    await delay(2500);
    assert.equal((await ctr.task('iced'))?.status, 'PAUSED');
    await ctr.ok('tasks', 'resume', 'iced');
    assert.equal(await pidOf(ctr, 'iced'), pid);
    await withdrawn(rig, 'iced');
  });

  it('ten that are killed at once run again, once each, with nothing left of their former lives', async () => {
    const { ctr, daemon } = rig;
    const before = holdings(daemon);
    const ids = Array.from({ length: 10 }, (_, index) => `many-${index}`);
    for (const id of ids) await ctr.runDetached(id, counting(rig, id, 'exec sleep 1000'), running);
    const pids = await Promise.all(ids.map((id) => pidOf(ctr, id)));
    await eventually('their first lives have begun', () => ids.every((id) => runs(rig, id) === 1));
    await daemon.kill9();
    for (const pid of pids) await killProcess(pid);
    await daemon.start();
    for (const [index, id] of ids.entries()) await replaced(ctr, id, pids[index]!);
    await delay(1500);
    for (const id of ids) {
      assert.equal(runs(rig, id), 2, id);
      assert.equal(containerPids(ctr.namespace, id).length, 1);
    }
    await withdrawn(rig, ...ids);
    await expectNothingLeft(daemon, before, { except: /^descriptor/ });
  });
});

const points = mkdtempSync('/tmp/mp-');
process.on('exit', () => rmSync(points, { recursive: true, force: true }));
const pointFile = join(points, 'failpoints');
writeFileSync(pointFile, '');

const killing = { config, env: { MOOR_FAILPOINTS: pointFile }, peers: ['moord'] as const };

suite('a restart that is cut off', killing, (rig) => {
  const steps = [
    'restart-recorded',
    'restart-cleared',
    'container-created',
    'restart-created',
    'container-started',
    'restart-started',
  ];
  for (const step of steps) {
    it(`by kill -9 at ${step} is carried through once`, async () => {
      const { ctr, daemon } = rig;
      const flags = [...running, ...label('policy', 'on-failure:1')];
      const file = `cut-${step}`;
      await ctr.runDetached('cut', counting(rig, file, 'exec sleep 1000'), flags);
      const pid = await pidOf(ctr, 'cut');
      await eventually('its first life has begun', () => runs(rig, file) === 1);
      writeFileSync(pointFile, `${step}=kill`);
      await killProcess(pid);
      await daemon.ended();
      writeFileSync(pointFile, '');
      await daemon.start();
      const second = await replaced(ctr, 'cut', pid);
      await delay(1500);
      assert.equal(await pidOf(ctr, 'cut'), second);
      assert.equal(containerPids(ctr.namespace, 'cut').length, 1);
      assert.equal(runs(rig, file), 2);
      const labels = await labelsOf(ctr, 'cut');
      assert.equal(labels[`${PREFIX}.count`], '1');
      await withdrawn(rig, 'cut');
    });
  }
});

suite('moor run --restart', { config, peers: ['moord'] }, (rig) => {
  const run = (moor: Moor, id: string, policy: string, flags: string[] = []) =>
    moor.ok('run', '-d', '--restart', policy, ...flags, '--rootfs', sharedRootfs(), id, 'sleep', '1000');

  it('unless-stopped: runs again when it dies, stays down when it is stopped, until it is started', async () => {
    const { ctr, daemon } = rig;
    const moor = new Moor(daemon, ctr.namespace);
    await run(moor, 'moored', 'unless-stopped', ['--null-io']);
    const first = await pidOf(ctr, 'moored');
    await killProcess(first);
    const second = await replaced(ctr, 'moored', first);
    await moor.ok('tasks', 'kill', '-s', 'SIGKILL', 'moored');
    await eventually('it ends', () => !alive(second));
    await daemon.restart();
    await delay(1500);
    assert.equal((await ctr.task('moored'))?.status, 'STOPPED');
    await moor.ok('tasks', 'rm', 'moored');
    await moor.ok('tasks', 'start', '-d', '--null-io', 'moored');
    const third = await pidOf(ctr, 'moored');
    await killProcess(third);
    await replaced(ctr, 'moored', third);
    await withdrawn(rig, 'moored');
  });

  it('refuses what is no policy, and a policy without --detach', async () => {
    const moor = new Moor(rig.daemon, rig.ctr.namespace);
    await assert.rejects(run(moor, 'never', 'sometimes'), /there is no restart policy sometimes/);
    const attached = await moor.call(['run', '--restart', 'always', '--rootfs', '/', 'never', 'true']);
    assert.match(attached.stderr, /--restart needs --detach/);
    assert.equal(attached.code, 125);
  });
});
