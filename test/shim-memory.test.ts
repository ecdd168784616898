/** A shim that is kept busy grows to a bound and no further. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { TasksDefinition } from '../proto/gen/containerd/services/tasks.ts';
import { suite } from './harness/peers.ts';
import { privateMemory, processOf } from './harness/processes.ts';

const MIB = 1024 * 1024;
const [ROUNDS, AT_ONCE] = [30, 10];
/** Both halves of V8's young generation, and what its collections write to of the heap that is shared with the template. */
const MOST = 24 * MIB;

suite('the memory of a shim', { peers: ['moord'], config: '[shim]\nspawn = "fork"\n' }, (rig) => {
  it('is bounded over 300 execs', { timeout: 200_000 }, async (t) => {
    const { ctr, daemon } = rig;
    // Forks the shim, when the template is through with its warm-up.
    await ctr.run('first', ['/bin/true'], ['--rm']);
    await ctr.runDetached('busy', ['/bin/sleep', '1000']);
    const shim = processOf((await ctr.task('busy'))?.pid ?? 0)?.parent ?? 0;
    const idle = privateMemory(shim);
    using connection = daemon.connect();
    const tasks = connection.service(TasksDefinition, ctr.namespace);
    const process = { args: ['/bin/true'], cwd: '/', env: [], user: { uid: 0, gid: 0 } };
    const spec = {
      typeUrl: 'types.containerd.io/opencontainers/runtime-spec/1/Process',
      value: Buffer.from(JSON.stringify(process)),
    };
    const once = async (execId: string) => {
      const call = { containerId: 'busy', execId };
      await tasks.exec({ ...call, spec });
      const ended = tasks.wait(call);
      await tasks.start(call);
      assert.equal((await ended).exitStatus, 0);
      await tasks.deleteProcess(call);
    };
    const grown: number[] = [];
    for (let round = 0; round < ROUNDS; round += 1) {
      await Promise.all(Array.from({ length: AT_ONCE }, (_, index) => once(`exec-${round}-${index}`)));
      grown.push(privateMemory(shim));
    }
    const shown = [idle, ...grown].map((bytes) => (bytes / MIB).toFixed(1));
    t.diagnostic(`MiB, idle and after each ten execs: ${shown.join(' ')}`);
    assert.ok(Math.max(...grown) < MOST, shown.join(' '));
    await ctr.remove('busy');
  });
});
