/** Namespaces keep apart what is in one daemon, and daemons side by side keep apart altogether. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { Daemon } from './harness/daemon.ts';
import { EventStream } from './harness/events.ts';
import { expectNothingLeft, holdings } from './harness/leftovers.ts';
import { suite } from './harness/peers.ts';
import { alive } from './harness/processes.ts';

suite('isolation', {}, (rig) => {
  it('the same id in two namespaces is two containers', async () => {
    const here = rig.daemon.ctr();
    const there = rig.daemon.ctr();
    await here.runDetached('same', ['/bin/sleep', '1000']);
    await there.runDetached('same', ['/bin/sleep', '2000']);
    const [one, two] = [await here.task('same'), await there.task('same')];
    assert.notEqual(one?.pid, two?.pid);
    assert.equal((await here.tasks()).size, 1);
    await here.ok('containers', 'label', 'same', 'side=here');
    assert.match(await there.ok('containers', 'info', 'same'), /"Labels": (null|\{\})/);
    await here.remove('same');
    assert.equal(await here.task('same'), undefined);
    assert.deepEqual(await there.task('same'), two);
    assert.ok(alive(two?.pid ?? 0));
    assert.equal((await there.exec('same', ['/bin/echo', 'here'])).stdout, 'here\n');
    await there.remove('same');
  });

  it('a namespace that no one made is empty, not an error', async () => {
    const nowhere = rig.daemon.ctr();
    assert.equal((await nowhere.tasks()).size, 0);
    assert.equal(await nowhere.ok('containers', 'ls', '-q'), '');
    assert.doesNotMatch(await nowhere.ok('namespaces', 'ls'), new RegExp(nowhere.namespace));
  });

  it('two daemons side by side: same id, nothing shared, and neither minds the other’s death', async () => {
    const before = holdings(rig.daemon);
    await using other = await Daemon.start(rig.peer);
    const there = other.ctr();
    using events = await EventStream.open(rig.ctr);
    await rig.ctr.runDetached('twin', ['/bin/sleep', '1000']);
    await there.runDetached('twin', ['/bin/sleep', '1000']);
    const [one, two] = [await rig.ctr.task('twin'), await there.task('twin')];
    assert.notEqual(one?.pid, two?.pid);
    await other.restart();
    assert.deepEqual(await there.task('twin'), two);
    await other.kill9();
    assert.equal((await rig.ctr.exec('twin', ['/bin/true'])).code, 0);
    assert.ok(alive(two?.pid ?? 0));
    await other.start();
    await there.remove('twin');
    assert.deepEqual(await rig.ctr.task('twin'), one);
    assert.ok(events.seen.every(({ namespace }) => namespace !== there.namespace));
    await rig.ctr.remove('twin');
    events[Symbol.dispose]();
    await expectNothingLeft(rig.daemon, before);
  });
});
