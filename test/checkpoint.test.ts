/**
 * Checkpoints as images, by ctr and by moor. CRIU does not work on every kernel, so a runtime stands in that saves and brings back
 * a file where CRIU would save and bring back memory; all around it is real.
 */
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, it } from 'node:test';
import { TasksDefinition } from '../proto/gen/containerd/services/tasks.ts';
import { busyboxImage, ociArchive } from './harness/image.ts';
import { expectNothingLeft, holdings } from './harness/leftovers.ts';
import { Moor } from './harness/moor.ts';
import { type Rig, suite } from './harness/peers.ts';
import { sharedRootfs } from './harness/rootfs.ts';
import { eventually } from './harness/wait.ts';

const IMAGE = 'example.com/checkpointed:1';
const MEMORY = Buffer.alloc(300_000, 'what the processes know; ').toString();

/** A runtime that runs containers as runc does, and writes `memory` beside itself to checkpoints, `restored` from them. */
function standIn(directory: string): string {
  const path = join(directory, 'runc-with-criu');
  const script = `#!/bin/bash
here=${directory}
printf '%s\\n' "$*" >>$here/calls
image= verb= leave= args=()
while [ $# -gt 0 ]; do
  case "$1" in
    --image-path) image=$2; shift ;;
    --work-path|--manage-cgroups-mode) shift ;;
    --leave-running) leave=1 ;;
    --no-subreaper|--file-locks|--tcp-established|--ext-unix-sk|--shell-job) ;;
    checkpoint) verb=checkpoint ;;
    restore) verb=restore; args+=(run) ;;
    *) args+=("$1") ;;
  esac
  id=$1
  shift
done
case "$verb" in
  checkpoint)
    mkdir $image/deep && cp $here/memory $image/deep/memory
    [ -n "$leave" ] && exit 0
    set -- "\${args[@]}"
    runc "\${args[@]:0:\${#args[@]}-1}" resume $id
    exec runc "\${args[@]:0:\${#args[@]}-1}" kill $id KILL ;;
  restore) cp $image/deep/memory $here/restored || exit 1 ;;
esac
exec runc "\${args[@]}"
`;
  writeFileSync(path, script);
  chmodSync(path, 0o755);
  writeFileSync(join(directory, 'memory'), MEMORY);
  return path;
}

interface Part {
  readonly mediaType: string;
  readonly digest: string;
}

async function partsOf(rig: Rig, name: string): Promise<Part[]> {
  const listing = await rig.ctr.ok('images', 'ls', `name==${name}`);
  const digest = /sha256:[0-9a-f]{64}/.exec(listing)?.[0] ?? '';
  return (JSON.parse(await rig.ctr.ok('content', 'get', digest)) as { manifests: Part[] }).manifests;
}

/** `ctr containers restore` takes no directory for its FIFOs. */
const FIFOS = '/run/containerd/fifo';
const fifos = (): string[] => {
  try {
    return readdirSync(FIFOS);
  } catch {
    return [];
  }
};

async function prepared(rig: Rig): Promise<string> {
  const archive = join(rig.daemon.directory, 'i.tar');
  await rig.ctr.ok('images', 'import', ociArchive(archive, [[IMAGE], await busyboxImage()]));
  return standIn(rig.daemon.directory);
}

const SLEEP = ['sleep', '1000'];

async function write(rig: Rig, id: string): Promise<void> {
  assert.equal((await rig.ctr.exec(id, ['sh', '-c', 'echo mine >/etc/mine'])).code, 0);
}

const directory = mkdtempSync('/tmp/mcp-');
after(() => rmSync(directory, { recursive: true }));
const failpoints = join(directory, 'failpoints');
writeFileSync(failpoints, '');

suite('checkpoints as images', {}, (rig) => {
  it('ctr writes a container to an image and restores it with its files and its memory', async () => {
    const { ctr, daemon } = rig;
    const runtime = await prepared(rig);
    await ctr.ok('run', '-d', '--null-io', '--runc-binary', runtime, IMAGE, 'first', ...SLEEP);
    await write(rig, 'first');
    const name = 'example.com/saved:1';
    await ctr.ok('containers', 'checkpoint', '--rw', '--image', '--task', 'first', name);
    assert.equal((await ctr.task('first'))?.status, 'RUNNING');
    const parts = await partsOf(rig, name);
    const types = parts.map(({ mediaType }) => mediaType);
    for (const type of [
      'application/vnd.containerd.container.checkpoint.runtime.options+proto',
      'application/vnd.oci.image.manifest.v1+json',
      'application/vnd.oci.image.layer.v1.tar+gzip',
      'application/vnd.containerd.container.criu.checkpoint.criu.tar',
      'application/vnd.containerd.container.checkpoint.config.v1+proto',
    ])
      assert.ok(types.includes(type), `${type} is among ${types.join(' ')}`);

    const before = new Set(fifos());
    try {
      await ctr.ok('containers', 'restore', '--rw', '--live', 'second', name);
      assert.equal((await ctr.task('second'))?.status, 'RUNNING');
      assert.equal((await ctr.exec('second', ['cat', '/etc/mine'])).stdout, 'mine\n');
      assert.equal(readFileSync(join(daemon.directory, 'restored'), 'utf8'), MEMORY);
    } finally {
      await Promise.all(['first', 'second'].map((id) => ctr.remove(id)));
      for (const fifo of fifos())
        if (!before.has(fifo)) rmSync(join(FIFOS, fifo), { recursive: true, force: true });
    }
  });

  it('ctr task checkpoint makes an image, and with --exit ends the container', async () => {
    const { ctr, daemon } = rig;
    const runtime = await prepared(rig);
    // containerd fails a checkpoint whose bytes it has already.
    writeFileSync(join(daemon.directory, 'memory'), 'what another task remembers');
    await ctr.runDetached('task', ['/bin/sleep', '1000'], ['--runc-binary', runtime]);
    const name = (await ctr.ok('tasks', 'checkpoint', '--exit', 'task')).trim();
    assert.match(name, /^containerd\.io\/checkpoint\/task:/);
    assert.equal((await partsOf(rig, name)).length, 2);
    await eventually('it has ended', async () => (await ctr.task('task'))?.status === 'STOPPED');
    await ctr.remove('task');
  });
});

suite('moor checkpoint and restore', { peers: ['moord'] }, (rig) => {
  it('a container goes on under another name, from an image that was elsewhere meanwhile', async () => {
    const { ctr, daemon } = rig;
    const moor = new Moor(daemon, ctr.namespace);
    const runtime = await prepared(rig);
    await ctr.tasks();
    const before = holdings(daemon);
    await moor.ok('run', '-d', '--null-io', '--runc-binary', runtime, IMAGE, 'first', ...SLEEP);
    await write(rig, 'first');
    const name = 'example.com/moored:1';
    const printed = await moor.ok('checkpoint', '--rw', '--image', '--task', '--exit', 'first', name);
    assert.equal(printed, `${name}\n`);
    await eventually('it has ended', async () => (await ctr.task('first'))?.status === 'STOPPED');
    await ctr.remove('first');
    await daemon.restart();
    await moor.ok('restore', '--rw', '--live', '-d', '--null-io', 'second', name);
    assert.equal((await ctr.exec('second', ['cat', '/etc/mine'])).stdout, 'mine\n');
    assert.equal(readFileSync(join(daemon.directory, 'restored'), 'utf8'), MEMORY);
    await ctr.remove('second');
    await moor.ok('restore', '-d', '--null-io', 'third', name);
    assert.equal(
      (await ctr.exec('third', ['cat', '/etc/mine'])).code,
      1,
      'without the changes it is as the image',
    );
    await ctr.remove('third');
    await expectNothingLeft(daemon, before, { except: /^descriptor/ });
    assert.deepEqual(readdirSync(join(daemon.root, 'checkpoints')), []);
  });

  it('says what is wrong, and leaves nothing', async () => {
    const { ctr, daemon } = rig;
    const moor = new Moor(daemon, ctr.namespace);
    await prepared(rig);
    await moor.ok('containers', 'create', '--rootfs', sharedRootfs(), 'plain', 'sleep', '1000');
    const before = holdings(daemon);
    const failing = async (pattern: RegExp, ...args: string[]) => {
      const { code, stderr } = await moor.call(args);
      assert.notEqual(code, 0);
      assert.match(stderr, pattern);
    };
    await failing(/nobody.*not found/, 'checkpoint', 'nobody', 'example.com/none:1');
    await failing(/plain.*not found/, 'checkpoint', '--task', 'plain', 'example.com/none:1');
    await failing(/was not made from an image/, 'checkpoint', '--image', 'plain', 'example.com/none:1');
    await failing(/is no checkpoint/, 'restore', 'copy', IMAGE);
    await failing(/not found/, 'restore', 'copy', 'example.com/none:1');
    using connection = daemon.connect();
    const tasks = connection.service(TasksDefinition, ctr.namespace);
    const digest = `sha256:${'0'.repeat(64)}`;
    const checkpoint = { mediaType: 'text/plain', digest, size: 1n };
    await assert.rejects(
      tasks.create({ containerId: 'plain', checkpoint }),
      /unsupported checkpoint type "text\/plain"/,
    );
    const criu = 'application/vnd.containerd.container.criu.checkpoint.criu.tar';
    await assert.rejects(
      tasks.create({ containerId: 'plain', checkpoint: { ...checkpoint, mediaType: criu } }),
      /failed to unpack the checkpoint: .*not found/,
    );
    assert.equal(await ctr.task('plain'), undefined);
    await expectNothingLeft(daemon, before, { except: /^descriptor/ });
    await ctr.remove('plain');
  });
});

suite('a checkpoint that is cut short', { peers: ['moord'], env: { MOOR_FAILPOINTS: failpoints } }, (rig) => {
  for (const step of ['checkpoint-written', 'checkpoint-packed', 'checkpoint-stored'] as const) {
    for (const kind of ['fail', 'kill'] as const) {
      it(`${kind} at ${step}: its container goes on, and the repeat succeeds`, async () => {
        const { ctr, daemon } = rig;
        await ctr.runDetached('task', ['/bin/sleep', '1000'], ['--runc-binary', standIn(daemon.directory)]);
        const task = await ctr.task('task');
        writeFileSync(failpoints, `${step}=${kind}`);
        const { code } = await ctr.call(['tasks', 'checkpoint', 'task']);
        writeFileSync(failpoints, '');
        assert.notEqual(code, 0);
        if (kind === 'kill') {
          await daemon.ended();
          await daemon.start();
          // ctr pauses a container for its checkpoint, and could not have it go on.
          assert.equal((await ctr.task('task'))?.status, 'PAUSED');
          await ctr.ok('tasks', 'resume', 'task');
        }
        assert.deepEqual(await ctr.task('task'), task);
        assert.deepEqual(readdirSync(join(daemon.root, 'checkpoints')), []);
        const name = (await ctr.ok('tasks', 'checkpoint', 'task')).trim();
        assert.equal((await partsOf(rig, name)).length, 2);
        assert.deepEqual(await ctr.task('task'), task);
        await ctr.ok('images', 'rm', '--sync', name);
        // Of a ctr that lost its daemon.
        for (const lease of await ctr.lines('leases', 'ls', '-q'))
          await ctr.ok('leases', 'rm', '--sync', lease);
        assert.deepEqual(await ctr.digests(), []);
        await ctr.remove('task');
      });
    }
  }
});
