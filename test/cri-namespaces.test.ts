/** Whom a pod's containers share their processes, their memory, their network and their users with. */
import assert from 'node:assert/strict';
import { chownSync, mkdirSync, readFileSync, readlinkSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { NamespaceMode, type NamespaceOption } from '../proto/gen/runtime/v1/api.ts';
import { Code } from '../ttrpc/errors.ts';
import type { PartialMessage } from '../ttrpc/service.ts';
import { Kubelet, type RunningPod, security } from './harness/cri.ts';
import { failureOf } from './harness/rpc.ts';

const FOREVER = ['sleep', '1000000'];
const { POD, CONTAINER, NODE, TARGET } = NamespaceMode;

describe('namespaces of containers', { timeout: 240_000 }, () => {
  let kubelet: Kubelet;
  before(async () => {
    kubelet = await Kubelet.start();
  });
  after(() => kubelet[Symbol.asyncDispose]());

  const podWith = (name: string, namespaceOptions: PartialMessage<NamespaceOption>): Promise<RunningPod> =>
    kubelet.runPod(name, { linux: { securityContext: { namespaceOptions } } });
  const runWith = (pod: RunningPod, name: string, namespaceOptions: PartialMessage<NamespaceOption>) =>
    kubelet.run(pod, name, FOREVER, security({ namespaceOptions }));
  const namespace = async (id: string, kind: string): Promise<string> =>
    (await kubelet.exec(id, 'readlink', `/proc/self/ns/${kind}`)).trim();
  const commands = async (id: string): Promise<string> => kubelet.exec(id, 'ps', '-o', 'pid,args');

  it('processes: the pod’s, its own, those of another container', async () => {
    const pod = await podWith('processes', { pid: POD });
    const podPid = await kubelet.pidOf(pod.id);
    const first = await runWith(pod, 'first', { pid: POD });
    const second = await runWith(pod, 'second', { pid: POD });
    assert.equal(await namespace(first, 'pid'), readlinkSync(`/proc/${podPid}/ns/pid`));
    assert.equal(await namespace(second, 'pid'), await namespace(first, 'pid'));
    assert.match(await commands(second), /^\s*1 \/pause/m);
    assert.equal((await commands(second)).match(/sleep 1000000/g)?.length, 2);
    const alone = await runWith(pod, 'alone', { pid: CONTAINER });
    assert.match(await commands(alone), /^\s*1 sleep 1000000/m);
    assert.equal((await commands(alone)).match(/sleep 1000000/g)?.length, 1);
    const debug = await kubelet.run(
      pod,
      'debug',
      ['sleep', '2000000'],
      security({ namespaceOptions: { pid: TARGET, targetId: alone } }),
    );
    assert.equal(await namespace(debug, 'pid'), await namespace(alone, 'pid'));
    assert.match(await commands(debug), /^\s*1 sleep 1000000(?:.|\n)*sleep 2000000/m);
    assert.equal(await namespace(debug, 'ipc'), await namespace(first, 'ipc'));
    await kubelet.runtime.stopContainer({ containerId: alone, timeout: 0n });
    const attempt = (of: RunningPod, targetId: string) =>
      failureOf(
        kubelet.create(of, 'late', FOREVER, security({ namespaceOptions: { pid: TARGET, targetId } })),
      );
    const ended = await attempt(pod, alone);
    assert.equal(ended.code, Code.FailedPrecondition, ended.message);
    assert.match(ended.message, new RegExp(`target container ${alone} is not running`));
    assert.equal((await attempt(pod, 'f'.repeat(64))).code, Code.NotFound);
    const other = await podWith('other', { pid: POD });
    assert.match((await attempt(other, first)).message, /is in another sandbox/);
    for (const { id } of [pod, other]) await kubelet.removePod(id);
  });

  it('memory is shared within a pod, and is as large as everywhere', async () => {
    const pod = await podWith('memory', { pid: CONTAINER });
    const [first, second] = [await runWith(pod, 'first', {}), await runWith(pod, 'second', {})];
    assert.equal(await namespace(first, 'ipc'), await namespace(second, 'ipc'));
    assert.notEqual(await namespace(first, 'ipc'), readlinkSync('/proc/self/ns/ipc'));
    await kubelet.exec(first, 'sh', '-c', 'echo shared > /dev/shm/file');
    assert.equal(await kubelet.exec(second, 'cat', '/dev/shm/file'), 'shared\n');
    assert.match(await kubelet.exec(first, 'df', '-k', '/dev/shm'), /\s65536\s/);
    assert.equal(await kubelet.exec(first, 'stat', '-c', '%a', '/dev/shm'), '1777\n');
    await kubelet.removePod(pod.id);
  });

  it('the node’s: its processes, memory, network and names', async () => {
    const options = { pid: NODE, ipc: NODE, network: NODE };
    const pod = await podWith('node', options);
    const id = await runWith(pod, 'node', options);
    for (const kind of ['pid', 'ipc', 'net', 'uts'])
      assert.equal(await namespace(id, kind), readlinkSync(`/proc/self/ns/${kind}`), kind);
    assert.notEqual(await namespace(id, 'mnt'), readlinkSync('/proc/self/ns/mnt'));
    const file = `/dev/shm/moor-${process.pid}`;
    try {
      writeFileSync(file, 'of the node');
      assert.equal(await kubelet.exec(id, 'cat', file), 'of the node');
    } finally {
      rmSync(file, { force: true });
    }
    await kubelet.removePod(pod.id);
  });

  it('users: root of a pod is nobody on the node, and owns the files of the pod', async () => {
    const ids = [{ hostId: 300_000, containerId: 0, length: 65_536 }];
    const usernsOptions = { mode: POD, uids: ids, gids: ids };
    const pod = await podWith('users', { pid: CONTAINER, usernsOptions });
    const volume = join(kubelet.daemon.directory, 'owned');
    mkdirSync(volume);
    chownSync(volume, 300_000, 300_000);
    const id = await kubelet.run(pod, 'users', FOREVER, {
      mounts: [{ hostPath: volume, containerPath: '/volume' }],
      ...security({ namespaceOptions: { pid: CONTAINER, usernsOptions } }),
    });
    assert.match(await kubelet.exec(id, 'cat', '/proc/self/uid_map'), /^\s*0\s+300000\s+65536\s*$/);
    assert.equal(await namespace(id, 'user'), readlinkSync(`/proc/${await kubelet.pidOf(pod.id)}/ns/user`));
    const owned = ['/', '/etc/passwd', '/etc/hosts', '/etc/hostname', '/etc/resolv.conf', '/volume'];
    assert.equal(await kubelet.exec(id, 'stat', '-c', '%u:%g', ...owned), '0:0\n'.repeat(owned.length));
    await kubelet.exec(id, 'sh', '-c', 'echo 10.1.1.1 more >> /etc/hosts; touch /volume/made /dev/shm/x');
    assert.equal(statSync(join(volume, 'made')).uid, 300_000);
    const { info } = await kubelet.runtime.containerStatus({ containerId: id, verbose: true });
    const { pid } = JSON.parse(info['info']!) as { pid: number };
    assert.match(readFileSync(`/proc/${pid}/status`, 'utf8'), /^Uid:\s+300000\s/m);
    const differs = await failureOf(
      kubelet.create(
        pod,
        'differs',
        FOREVER,
        security({ namespaceOptions: { usernsOptions: { mode: NODE } } }),
      ),
    );
    assert.match(differs.message, /user namespace/);
    const { runtimeHandlers } = await kubelet.runtime.status({});
    // Debian's runc would mount it with the owners of the node, and say nothing.
    if (runtimeHandlers.find(({ name }) => name === '')?.features?.userNamespaces !== true) {
      const mounts = [{ hostPath: volume, containerPath: '/volume', uidMappings: ids, gidMappings: ids }];
      const mapped = await failureOf(kubelet.create(pod, 'mapped', FOREVER, { mounts }));
      assert.match(mapped.message, /idmap mounts not supported/);
      assert.equal(mapped.code, Code.FailedPrecondition);
    }
    await kubelet.removePod(pod.id);
    assert.deepEqual(kubelet.left(), []);
    const plain = await podWith('plain', { usernsOptions: { mode: NODE } });
    const same = await runWith(plain, 'plain', { usernsOptions: { mode: NODE } });
    assert.equal(await namespace(same, 'user'), readlinkSync('/proc/self/ns/user'));
    await kubelet.removePod(plain.id);
  });
});
