/**
 * The runtime dies while it creates a container, alone or with those around it: what it had made by then is removed by whoever is left,
 * and the client's repeat succeeds. A hook of the container, which the runtime waits for, does the killing: that is after the
 * cgroups have been made and before the runtime has written down which.
 */
import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, beforeEach, it } from 'node:test';
import { Options } from '../../proto/gen/containerd/runtime/runc.ts';
import { TasksDefinition } from '../../proto/gen/containerd/services/tasks.ts';
import { pidsIn } from '../harness/cgroups.ts';
import { expectNothingLeft, holdings } from '../harness/leftovers.ts';
import { suite } from '../harness/peers.ts';
import { killProcess, processOf } from '../harness/processes.ts';
import { script } from '../harness/rootfs.ts';
import { failureOf } from '../harness/rpc.ts';
import { eventually } from '../harness/wait.ts';

const folder = mkdtempSync('/tmp/mrt-');
after(() => rmSync(folder, { recursive: true }));
const hook = join(folder, 'hook');
/** By its name it is runc: nothing else is done in another way for it. */
const runtime = join(folder, 'runc');
const uponDelete = join(folder, 'upon-delete');
const taken = `${uponDelete}.taken`;
const tally = join(folder, 'tally');

writeFileSync(
  runtime,
  `#!/bin/sh
bundle=
for word; do
  [ "$before" = --bundle ] && bundle=$word
  before=$word
done
case " $* " in
  *" create "*) sed -i 's|^{|{"hooks":{"createRuntime":[{"path":"/bin/sh","args":["sh","${hook}"]}]},|' "$bundle/config.json" ;;
  *" delete "*)
    # Once only.
    if mv ${uponDelete} ${taken} 2>/dev/null; then . ${taken}; fi ;;
esac
exec runc "$@"
`,
);
chmodSync(runtime, 0o755);

const within = 30_000;
// A template may come, or come again, at any time.
const except = /^process .*template|^descriptor/;
const options = {
  typeUrl: 'containerd.runc.v1.Options',
  value: Buffer.from(Options.encode(Options.fromPartial({ binaryName: runtime })).finish()),
};

suite('a runtime that is killed', { peers: ['moord'] }, (rig) => {
  beforeEach(() => rmSync(taken, { force: true }));
  const tasks = () => rig.daemon.connect().service(TasksDefinition, rig.ctr.namespace);
  const SHIM = '$(/bin/sed -n "s/^PPid:[^0-9]*//p" /proc/$PPID/status)';

  const deaths = {
    alone: () => 'kill -9 $PPID',
    'with its shim': () => `kill -9 ${SHIM} $PPID`,
    'after its shim': () => `kill -9 ${SHIM}`,
    'with its shim and the daemon': () => `kill -9 ${rig.daemon.pid} ${SHIM} $PPID`,
    'after its shim and the daemon': () => `kill -9 ${rig.daemon.pid} ${SHIM}`,
  };
  for (const [who, kill] of Object.entries(deaths)) {
    it(`while it creates a container, ${who}`, async () => {
      const { daemon, ctr } = rig;
      const id = `unborn-${who.replaceAll(' ', '-')}`;
      await ctr.create(id, script('exit 7'));
      const held = holdings(daemon);
      writeFileSync(hook, `${kill()}\n`);
      await failureOf(tasks().create({ containerId: id, options }));
      if (who.endsWith('daemon')) {
        await daemon.ended();
        await daemon.start();
        // The runtime may have come to its end: there is a task then, which is over.
        await tasks()
          .delete({ containerId: id })
          .catch((error: unknown) => assert.match(String(error), /not found/));
      }
      await eventually('none of its processes is left', () => pidsIn(`${ctr.namespace}/${id}`).length === 0, {
        within,
      });
      await expectNothingLeft(daemon, held, { except, within });
      writeFileSync(hook, '');
      await tasks().create({ containerId: id, options });
      await tasks().start({ containerId: id });
      assert.equal((await tasks().wait({ containerId: id })).exitStatus, 7);
      await tasks().delete({ containerId: id });
      await expectNothingLeft(daemon, held, { except, within });
      await ctr.ok('containers', 'rm', id);
    });
  }

  it('while it deletes what a failed creation has left', async () => {
    const { daemon, ctr } = rig;
    const id = 'undone';
    await ctr.create(id, script('exit 7'));
    const held = holdings(daemon);
    writeFileSync(hook, 'kill -9 $PPID\n');
    writeFileSync(uponDelete, 'kill -9 $$\n');
    await failureOf(tasks().create({ containerId: id, options }));
    assert.ok(existsSync(taken), 'a deletion was killed');
    await expectNothingLeft(daemon, held, { except, within });
    await ctr.ok('containers', 'rm', id);
  });

  it('while it deletes the container of a dead shim, five times with the program that cleans up', async () => {
    const { daemon, ctr } = rig;
    const id = 'bereft';
    await ctr.create(id, script('sleep 1000'));
    const held = holdings(daemon);
    writeFileSync(hook, '');
    const { pid } = await tasks().create({ containerId: id, options });
    await tasks().start({ containerId: id });
    writeFileSync(
      uponDelete,
      `echo killed >>${tally}\n[ $(wc -l <${tally}) = 5 ] || mv ${taken} ${uponDelete}\nkill -9 $PPID $$\n`,
    );
    await killProcess(processOf(pid)?.parent ?? 0);
    assert.equal((await tasks().wait({ containerId: id })).exitStatus, 137);
    assert.ok(existsSync(taken), 'the last one was killed too');
    assert.equal((await tasks().delete({ containerId: id })).exitStatus, 137);
    await expectNothingLeft(daemon, held, { except, within });
    await ctr.ok('containers', 'rm', id);
  });
});
