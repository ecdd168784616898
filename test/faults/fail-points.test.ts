/**
 * Every step that changes the world fails once, and is once the last thing that a process does. Afterwards what is there is whole, the
 * client does the same again and succeeds, and nothing is left.
 *
 * Deaths of the daemon at the steps of images, networks, restarts and pods are in suites of their own (`image-crash`, `network-crash`,
 * `restart-policy`), those at the steps of tasks in `daemon/services/tasks.test.ts` as well.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, it } from 'node:test';
import type { Step } from '../../daemon/failpoint.ts';
import type { ShimStep } from '../../shim/failpoint.ts';
import { TasksDefinition } from '../../proto/gen/containerd/services/tasks.ts';
import { containerPids } from '../harness/daemon.ts';
import { EventStream } from '../harness/events.ts';
import { busyboxImage, ociArchive } from '../harness/image.ts';
import { expectNothingLeft, holdings } from '../harness/leftovers.ts';
import { PROCESS } from '../harness/journey.ts';
import { makeHub, plug, refusalOf, sdk } from '../harness/networks.ts';
import { suite } from '../harness/peers.ts';
import { killProcess, workingDirectory } from '../harness/processes.ts';
import { describe } from '../harness/program.ts';
import { expectNothingStored, expectWhole, leasesOf } from '../harness/stored.ts';
import { eventually } from '../harness/wait.ts';

type Kind = 'fail' | 'kill';

const folder = mkdtempSync('/tmp/mp-');
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
const points = join(folder, 'points');
const arm = (text: string) => writeFileSync(points, text);
arm('');

const within = 30_000;
// FIFOs in the client's directory are the client's, who was cut off. Workers that unpack come and go.
const except = /^descriptor|^fifo .*\/fifo\/|process .*differ|^process .*template/;

suite('a step that fails', { peers: ['moord'], env: { MOOR_FAILPOINTS: points } }, (rig) => {
  /**
   * Has the step fail or kill while the client acts, and puts everything as it was but for what the client has done.
   *
   * @param who of it is killed, where it is
   */
  const at = async (
    step: Step | ShimStep,
    kind: Kind,
    who: 'daemon' | 'shim',
    act: () => Promise<unknown>,
  ): Promise<void> => {
    arm(`${step}=${kind}`);
    let died = false;
    const ended = rig.daemon.ended().then(() => (died = true));
    try {
      await Promise.race([act(), ended]);
      if (kind === 'kill' && who === 'daemon') await ended;
    } finally {
      arm('');
    }
    if (died) await rig.daemon.start();
  };

  const removed = async (id: string): Promise<void> => {
    const task = await rig.ctr.call(['tasks', 'rm', '-f', id]);
    assert.ok(task.code === 0 || /not found/.test(task.stderr), describe(task));
    const container = await rig.ctr.call(['containers', 'rm', id]);
    assert.ok(container.code === 0 || /not found/.test(container.stderr), describe(container));
    assert.equal(await rig.ctr.task(id), undefined);
    await eventually('no process is left', () => containerPids(rig.ctr.namespace, id).length === 0, {
      within,
    });
  };

  const taskSteps: { readonly [name: string]: readonly [Step | ShimStep, 'daemon' | 'shim', Kind[]][] } = {
    run: [
      ['metadata-written', 'daemon', ['fail', 'kill']],
      ['metadata-committed', 'daemon', ['fail', 'kill']],
      ['bundle-made', 'daemon', ['fail', 'kill']],
      ['shim-started', 'daemon', ['fail', 'kill']],
      ['shim-connected', 'daemon', ['fail', 'kill']],
      ['container-created', 'daemon', ['fail', 'kill']],
      ['container-started', 'daemon', ['fail', 'kill']],
      ['rootfs-mounted', 'shim', ['fail', 'kill']],
      ['runtime-created', 'shim', ['fail', 'kill']],
      ['runtime-started', 'shim', ['fail', 'kill']],
      ['event-due', 'shim', ['fail', 'kill']],
    ],
    delete: [
      ['delete-begun', 'daemon', ['fail', 'kill']],
      ['container-deleted', 'daemon', ['fail', 'kill']],
      ['shim-stopped', 'daemon', ['fail', 'kill']],
      ['bundle-removed', 'daemon', ['fail', 'kill']],
      ['exit-recorded', 'shim', ['fail', 'kill']],
      ['runtime-deleted', 'shim', ['fail', 'kill']],
      ['rootfs-unmounted', 'shim', ['fail', 'kill']],
    ],
    exec: [
      ['process-added', 'daemon', ['fail', 'kill']],
      ['process-started', 'daemon', ['fail', 'kill']],
      ['exec-running', 'shim', ['fail', 'kill']],
    ],
    'kill of the shim': [
      ['dead-shim-cleaned', 'daemon', ['fail', 'kill']],
      ['dead-shim-recorded', 'daemon', ['fail', 'kill']],
    ],
  };
  const acts: { readonly [name: string]: (id: string) => Promise<unknown> } = {
    run: (id) => rig.ctr.call(rig.ctr.runArgs(id, ['/bin/sleep', '1000'], ['-d', '--null-io'])),
    delete: (id) => rig.ctr.call(['tasks', 'rm', '-f', id]),
    exec: (id) => rig.ctr.exec(id, ['/bin/true']),
    'kill of the shim': async (id) => {
      const bundle = rig.daemon.bundle(rig.ctr.namespace, id);
      const shim = rig.daemon.shims().find((pid) => workingDirectory(pid) === bundle);
      await killProcess(shim!);
      await eventually('its container is dead', () => containerPids(rig.ctr.namespace, id).length === 0, {
        within,
      });
    },
  };
  for (const [job, steps] of Object.entries(taskSteps)) {
    for (const [step, who, kinds] of steps) {
      for (const kind of kinds) {
        it(`${job}: ${kind} of the ${who} at ${step}`, async () => {
          const held = holdings(rig.daemon);
          const id = 'x';
          if (job !== 'run') await rig.ctr.runDetached(id, ['/bin/sleep', '1000']);
          await at(step, kind, who, () => acts[job]!(id));
          await removed(id);
          const again = await rig.ctr.run(id, ['/bin/echo', 'again'], ['--rm']);
          assert.equal(again.stdout, 'again\n', describe(again));
          await expectNothingLeft(rig.daemon, held, { except, within });
        });
      }
    }
  }

  it('what a shim has answered and is killed before it tells, is told all the same', async () => {
    const { ctr, daemon } = rig;
    const held = holdings(daemon);
    const tasks = daemon.connect().service(TasksDefinition, ctr.namespace);
    using events = await EventStream.open(ctr);
    await ctr.create('silent', ['/bin/sleep', '1000']);
    const { pid } = await tasks.create({ containerId: 'silent' });
    await events.sees('silent', '/tasks/create', { within });
    arm('event-due=kill');
    assert.equal((await tasks.start({ containerId: 'silent' })).pid, pid);
    assert.equal((await tasks.wait({ containerId: 'silent' })).exitStatus, 137);
    arm('');
    await events.sees('silent', '/tasks/exit', { within });
    assert.equal(events.of('silent', '/tasks/start').length, 1);

    await ctr.runDetached('aboard', ['/bin/sleep', '1000']);
    const process = { args: ['/bin/sleep', '1000'], cwd: '/', env: [], user: { uid: 0, gid: 0 } };
    const spec = { typeUrl: PROCESS, value: Buffer.from(JSON.stringify(process)) };
    const exec = { containerId: 'aboard', execId: 'side' };
    await tasks.exec({ ...exec, spec });
    await events.sees('aboard', '/tasks/exec-added', { within });
    arm('event-due=kill');
    const started = await tasks.start(exec);
    assert.equal((await tasks.wait(exec)).exitStatus, 137);
    arm('');
    await eventually('both ends are told', () => events.of('aboard', '/tasks/exit').length === 2, { within });
    const [told, ...more] = events.of('aboard', '/tasks/exec-started');
    assert.deepEqual([told?.body['pid'], more], [started.pid, []]);

    await ctr.runDetached('deleted', ['/bin/true']);
    await events.sees('deleted', '/tasks/exit', { within });
    arm('event-due=kill');
    assert.equal((await tasks.delete({ containerId: 'deleted' })).exitStatus, 0);
    arm('');
    await events.sees('deleted', '/tasks/delete', { within });
    for (const id of ['silent', 'aboard', 'deleted']) await removed(id);
    for (const id of ['silent', 'aboard']) await events.sees(id, '/tasks/delete', { within });
    for (const id of ['silent', 'deleted'])
      for (const topic of ['create', 'start', 'exit', 'delete'])
        assert.equal(events.of(id, `/tasks/${topic}`).length, 1, `${topic} of ${id}`);
    events[Symbol.dispose]();
    await expectNothingLeft(daemon, held, { except, within });
  });

  const name = 'd.test/harbour/ship:1';
  let archive: string;
  before(async () => {
    const image = await busyboxImage({ above: [{ 'cargo/list': 'rum\n' }] });
    archive = ociArchive(join(rig.daemon.directory, 'ship.tar'), [[name], image]);
  });
  const images: { readonly [job: string]: readonly Step[] } = {
    import: [
      'ingest-recorded',
      'ingest-written',
      'ingest-synced',
      'blob-renamed',
      'blob-recorded',
      'snapshot-made',
      'snapshot-prepared',
      'layer-applied',
      'snapshot-committed',
      'image-recorded',
      'metadata-written',
      'metadata-committed',
    ],
    removal: [
      'garbage-marked',
      'garbage-forgotten',
      'blob-removed',
      'snapshot-removed',
      'metadata-written',
      'metadata-committed',
    ],
  };
  for (const [job, steps] of Object.entries(images)) {
    for (const step of steps) {
      it(`${job} of an image: failure at ${step}`, async () => {
        const { ctr, daemon } = rig;
        const held = holdings(daemon);
        const bring = (): Promise<string> => ctr.ok('images', 'import', archive);
        if (job === 'removal') await bring();
        await at(step, 'fail', 'daemon', () =>
          ctr.call(job === 'import' ? ['images', 'import', archive] : ['images', 'rm', '--sync', name]),
        );
        await expectWhole(daemon, ctr);
        await bring();
        await expectWhole(daemon, ctr);
        assert.equal((await ctr.runImage(name, 'look', ['cat', '/cargo/list'])).stdout, 'rum\n');
        // Those of a client that was refused.
        for (const lease of await leasesOf(ctr)) await ctr.ok('leases', 'rm', lease);
        await expectNothingStored(daemon, ctr);
        await expectNothingLeft(daemon, held, { except, within });
      });
    }
  }

  const records: { readonly [what: string]: readonly [make: string[], unmake: string[]] } = {
    lease: [
      ['leases', 'create', '--id', 'l'],
      ['leases', 'rm', 'l'],
    ],
    namespace: [
      ['namespaces', 'create', 'other-x'],
      ['namespaces', 'rm', 'other-x'],
    ],
    snapshot: [
      ['snapshots', 'prepare', 's'],
      ['snapshots', 'rm', 's'],
    ],
  };
  for (const [what, commands] of Object.entries(records)) {
    for (const step of ['metadata-written', 'metadata-committed'] as const) {
      for (const kind of ['fail', 'kill'] as const) {
        it(`making and removing a ${what}: ${kind} at ${step}`, async () => {
          for (const [index, command] of commands.entries()) {
            await at(step, kind, 'daemon', () => rig.ctr.call(command));
            const again = await rig.ctr.call(command);
            // It had been done, or is done now.
            const done = index === 0 ? /already exists/ : /not found|does not exist/;
            assert.ok(again.code === 0 || done.test(again.stderr), describe(again));
            const third = await rig.ctr.call(command);
            assert.match(
              `${third.code} ${third.stderr}`,
              index === 0 ? /already exists/ : /^0 |not found|does not exist/,
            );
          }
        });
      }
    }
  }

  for (const step of [
    'network-recorded',
    'network-made',
    'link-recorded',
    'link-made',
    'link-configured',
    'link-done',
    'network-doomed',
    'network-removed',
  ] satisfies Step[]) {
    it(`a network and its link: failure at ${step}`, async () => {
      const held = holdings(rig.daemon);
      using client = await sdk(rig.daemon, rig.ctr);
      await makeHub(client);
      const make = async (): Promise<void> => {
        await client.networks.create('n');
        await plug(client, 'n', '10.5.0.1/24');
      };
      const unmake = (): Promise<void> => client.networks.delete('n');
      const isRemoval = step === 'network-doomed' || step === 'network-removed';
      if (isRemoval) await make();
      await at(step, 'fail', 'daemon', () => (isRemoval ? unmake() : make()).catch(() => undefined));
      const left = await refusalOf(unmake()).catch(() => '');
      assert.match(left, /^$|^5 network "n": not found/);
      // The kernel takes the other end down in its own time.
      await eventually(
        'it is made again',
        () =>
          make().then(
            () => true,
            async (error: unknown) => {
              await unmake().catch(() => undefined);
              throw error;
            },
          ),
        { within },
      );
      await unmake();
      await client.networks.delete('hub');
      await expectNothingLeft(rig.daemon, held, { except, within });
    });
  }
});
