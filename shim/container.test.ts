import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Metrics } from '../proto/gen/cgroups/v1.ts';
import { TaskExit } from '../proto/gen/containerd/events/task.ts';
import { Options, ProcessDetails } from '../proto/gen/containerd/runtime/runc.ts';
import { CreateOptions } from '../proto/gen/containerd/runtime/runc_v1.ts';
import { pack } from './any.ts';
import { type Daemon, eventually, Reader, Workshop } from './fixture.test.ts';

const SIGKILL = 9;

/** Exits of execs by their ids, as the events tell them. */
function exits(daemon: Daemon): Map<string, number> {
  const found = new Map<string, number>();
  for (const { topic, event } of daemon.events) {
    if (topic !== '/tasks/exit') continue;
    const { id, exitStatus } = TaskExit.decode(event.value);
    assert.ok(!found.has(id), `the exit of ${id} is told once`);
    found.set(id, exitStatus);
  }
  return found;
}

/** Children of a process, by state. */
function childrenOf(pid: number): string[] {
  const pids = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').trim().split(' ');
  return pids.filter(Boolean).flatMap((child) => {
    try {
      return [readFileSync(`/proc/${child}/stat`, 'latin1').split(') ')[1]![0]!];
    } catch {
      // It has been reaped meanwhile.
      return [];
    }
  });
}

test('30 execs at once exit with their own codes, each told once and after its start', async () => {
  await using workshop = new Workshop();
  const daemon = await workshop.daemon();
  const shim = await workshop.shim({ daemon });
  await shim.run({});
  const codes = Array.from({ length: 30 }, (_, code) => code);
  await Promise.all(codes.map((code) => shim.exec(`e${code}`, ['sh', '-c', `exit ${code}`])));
  for (const code of codes) assert.equal((await shim.wait(`e${code}`)).exitStatus, code);
  await eventually('all exits', () => exits(daemon).size === 30);
  for (const code of codes) assert.equal(exits(daemon).get(`e${code}`), code);
  for (const code of codes) assert.equal((await shim.delete(`e${code}`)).exitStatus, code);
  const started = new Set<number>();
  for (const { topic, event } of daemon.events) {
    if (topic === '/tasks/exec-started') started.add(started.size);
    if (topic === '/tasks/exit') assert.ok(started.size > 0, TaskExit.decode(event.value).id);
  }
  assert.deepEqual(
    readdirSync(shim.bundle).filter((name) => name.startsWith('exec-')),
    [],
  );
});

test('100 execs one after the other leave no descriptor, process or file behind', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  await shim.run({});
  const descriptors = () => readdirSync(`/proc/${shim.pid}/fd`).length;
  const cycle = async (id: string) => {
    const out = new Reader(workshop.folder, 'out').open();
    await shim.exec(id, ['echo', id], { stdout: out.path });
    assert.equal(await out.end(), `${id}\n`);
    // Its output ends a moment before it does.
    await shim.wait(id);
    assert.equal((await shim.delete(id)).exitStatus, 0);
  };
  await cycle('first');
  const before = descriptors();
  const files = readdirSync(shim.bundle);
  for (let index = 0; index < 100; index++) await cycle(`e${index}`);
  assert.equal(descriptors(), before);
  assert.deepEqual(readdirSync(shim.bundle), files);
  assert.deepEqual(childrenOf(shim.pid), ['S']);
});

test('orphans of the container are reaped, whoever their parent was', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  await shim.run({ hostPid: true, args: ['sleep', '1000'] });
  // Without a PID namespace of their own, orphans become the shim's children.
  await shim.exec('e', ['sh', '-c', 'for i in 1 2 3 4 5; do (sleep 0.1; exit 3) & done; exit 0']);
  assert.equal((await shim.wait('e')).exitStatus, 0);
  await eventually('the orphans', () => childrenOf(shim.pid).length > 1 || undefined).catch(() => undefined);
  await eventually('their end', () => childrenOf(shim.pid).length === 1);
});

test('without a PID namespace of its own, an init takes all its processes with it', async () => {
  await using workshop = new Workshop();
  const daemon = await workshop.daemon();
  const shim = await workshop.shim({ daemon });
  const out = new Reader(workshop.folder, 'out').open();
  await shim.run({ hostPid: true, args: ['sh', '-c', 'sleep 1001 & echo x; wait'], stdout: out.path });
  await shim.exec('e', ['sleep', '1002']);
  await out.says('x');
  const pids = (await shim.task.pids({ id: shim.id })).processes.map(({ pid }) => pid);
  assert.equal(pids.length, 3);
  await shim.kill(SIGKILL);
  await daemon.exit(shim.id);
  assert.equal((await daemon.exit(shim.id, 'e')).exitStatus, 137);
  const order = daemon.events
    .filter(({ topic }) => topic === '/tasks/exit')
    .map(({ event }) => TaskExit.decode(event.value).id);
  assert.deepEqual(order, ['e', shim.id]);
  // Dead before the init's exit is told; the shim reaps the orphans among them when it comes to it.
  for (const pid of pids) await eventually(`the end of process ${pid}`, () => !existsSync(`/proc/${pid}`));
  await out.end();
  await shim.delete();
});

test('the exits of execs are told before that of the init that ended them', async () => {
  await using workshop = new Workshop();
  const daemon = await workshop.daemon();
  const shim = await workshop.shim({ daemon });
  await shim.run({});
  await Promise.all([1, 2, 3].map((index) => shim.exec(`e${index}`, ['sleep', '1000'])));
  await shim.kill(SIGKILL);
  await daemon.exit(shim.id);
  const order = [...exits(daemon).keys()];
  assert.equal(order.at(-1), shim.id);
  assert.equal(order.length, 4);
});

test('events wait for a daemon that is away, and come once and in order', async () => {
  await using workshop = new Workshop();
  const daemon = await workshop.daemon();
  const shim = await workshop.shim({ daemon });
  await shim.run({});
  await shim.moor.flush({});
  await daemon.stop();
  await shim.exec('e', ['sh', '-c', 'exit 4']);
  await shim.wait('e');
  await shim.kill(SIGKILL);
  await shim.wait();
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.deepEqual(daemon.topics(), ['create', 'start']);
  await daemon.start();
  const flushed = await shim.moor.flush({});
  assert.equal(flushed.flushed, 4);
  assert.deepEqual(daemon.topics(), ['create', 'start', 'exec-added', 'exec-started', 'exit', 'exit']);
  await shim.delete();
  await shim.moor.flush({});
  assert.deepEqual(daemon.topics().slice(6), ['delete']);
});

test('a caller of version 3 can subscribe to the events', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  const topics: string[] = [];
  const stop = new AbortController();
  const subscription = (async () => {
    for await (const { topic, namespace } of shim.taskV3.events({}, { signal: stop.signal })) {
      assert.equal(namespace, workshop.namespace);
      topics.push(topic);
    }
  })();
  await shim.run({ args: ['true'] });
  await eventually('the exit', () => topics.includes('/tasks/exit'));
  assert.deepEqual(topics, ['/tasks/create', '/tasks/start', '/tasks/exit']);
  stop.abort();
  await subscription.catch(() => undefined);
});

test('processes of the container are listed with the ids of execs', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  const pid = await shim.run({});
  const exec = await shim.exec('second', ['sleep', '1000']);
  const { processes } = await shim.task.pids({ id: shim.id });
  assert.deepEqual(
    processes.map((each) => each.pid).sort((a, b) => a - b),
    [pid, exec].sort((a, b) => a - b),
  );
  const info = processes.find((each) => each.pid === exec)!.info!;
  assert.equal(info.typeUrl, 'containerd.runc.v1.ProcessDetails');
  assert.equal(ProcessDetails.decode(info.value).execId, 'second');
  assert.equal((await shim.task.connect({ id: shim.id })).taskPid, pid);
  assert.equal((await shim.task.connect({ id: shim.id })).shimPid, shim.pid);
});

test('metrics are those of the cgroup, and limits can be changed', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  const pid = await shim.run({ memoryLimit: 64 << 20 });
  // It is runc's init for a moment more, with threads of its own.
  await eventually('the program runs', () => readFileSync(`/proc/${pid}/comm`, 'latin1') === 'sleep\n');
  const read = async () => {
    const { stats } = await shim.task.stats({ id: shim.id });
    assert.equal(stats?.typeUrl, 'io.containerd.cgroups.v1.Metrics');
    return Metrics.decode(stats.value);
  };
  const metrics = await read();
  assert.equal(metrics.memory?.usage?.limit, 64n << 20n);
  assert.ok(metrics.memory?.usage?.usage !== 0n);
  assert.equal(metrics.pids?.current, 1n);
  assert.ok(metrics.cpu!.usage!.total > 0n);
  const resources = pack(
    'linux',
    Buffer.from(JSON.stringify({ memory: { limit: 32 << 20, swap: 32 << 20 } })),
  );
  await shim.task.update({ id: shim.id, resources });
  assert.equal((await read()).memory?.usage?.limit, 32n << 20n);
  await assert.rejects(shim.task.update({ id: shim.id, resources: pack('linux', Buffer.from('no')) }), {
    message: /^OCI runtime update failed/,
  });
});

test('a container that runs out of memory says so before it ends', async () => {
  await using workshop = new Workshop();
  const daemon = await workshop.daemon();
  const shim = await workshop.shim({ daemon });
  const args = ['sh', '-c', 'x=$(head -c 100000000 /dev/zero | tr "\\0" x); echo ${#x}'];
  await shim.run({ args, memoryLimit: 16 << 20 });
  await daemon.exit(shim.id);
  const topics = daemon.topics();
  assert.ok(topics.includes('oom'), topics.join());
  assert.ok(topics.indexOf('oom') < topics.indexOf('exit'), topics.join());
});

test('a failed exec says why, and its id can be used again when it is deleted', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  await shim.run({});
  const out = new Reader(workshop.folder, 'out').open();
  await assert.rejects(shim.exec('e', ['nope'], { stderr: out.path }), {
    code: 2,
    message: /^OCI runtime exec failed: .*exec: "nope": executable file not found in \$PATH/,
  });
  assert.equal(await out.end(), '');
  await shim.delete('e');
  await shim.exec('e', ['true']);
  const spec = pack('Process', Buffer.from('{'));
  await assert.rejects(shim.task.exec({ id: shim.id, execId: 'f', spec }), { code: 3, message: /not JSON/ });
});

test('another runtime is used when the options name it', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  const binaryName = join(workshop.folder, 'other-runc');
  writeFileSync(binaryName, `#!/bin/sh\necho "$@" >> ${binaryName}.log\nexec runc "$@"\n`);
  chmodSync(binaryName, 0o755);
  const root = join(workshop.folder, 'other-root');
  const encoded = Options.encode(Options.fromPartial({ binaryName, root, noPivotRoot: false })).finish();
  await shim.run({ args: ['true'], options: pack('containerd.runc.v1.Options', encoded) });
  assert.equal((await shim.wait()).exitStatus, 0);
  const calls = readFileSync(`${binaryName}.log`, 'utf8');
  assert.ok(calls.includes(`--root ${join(root, workshop.namespace)}`), calls);
  await shim.delete();
});

test('a runtime that does not exist is named', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  for (const binaryName of ['no-such-runtime', '/no/such/runtime']) {
    const encoded = Options.encode(Options.fromPartial({ binaryName })).finish();
    const options = pack('type.googleapis.com/containerd.runc.v1.Options', encoded);
    await assert.rejects(shim.create({ options }), { code: 5, message: new RegExp(`exec: "${binaryName}"`) });
  }
  const legacy = pack(
    'containerd.linux.runc.CreateOptions',
    CreateOptions.encode(CreateOptions.fromPartial({})).finish(),
  );
  await shim.create({ options: legacy });
});

test('a checkpoint fails with the words of the runtime where criu does not work', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  await shim.run({});
  const path = join(workshop.folder, 'checkpoint');
  await assert.rejects(shim.task.checkpoint({ id: shim.id, path }), (error: Error & { code: number }) => {
    assert.equal(error.code, 12, error.message);
    assert.match(
      error.message,
      /^OCI runtime checkpoint failed: (criu failed: .*vdso|.*"criu": executable file not found)/,
    );
    return true;
  });
  assert.equal((await shim.state()).status, 2);
});

test('a container is checkpointed and restored by a runtime that can', async () => {
  await using workshop = new Workshop();
  const daemon = await workshop.daemon();
  const shim = await workshop.shim({ daemon });
  const binaryName = join(workshop.folder, 'criu-runc');
  // Stands in for criu: a checkpoint is a note, a restore runs the bundle.
  const script = `#!/bin/bash
echo "$@" >> ${binaryName}.log
args=("$@")
for i in "\${!args[@]}"; do
  case "\${args[$i]}" in
    --image-path|--work-path) [ "\${args[$i]}" = --image-path ] && image="\${args[$((i+1))]}"; unset "args[$i]" "args[$((i+1))]" ;;
    --no-subreaper|--leave-running) unset "args[$i]" ;;
    checkpoint) echo saved > "$image/note" 2>/dev/null || checkpoint=1 ;;
    restore) args[$i]=run; restore=1 ;;
  esac
done
if [[ " $* " == *" checkpoint "* ]]; then echo saved > "$image/note"; exit 0; fi
if [ -n "$restore" ]; then [ "$(cat "$image/note")" = saved ] || exit 1; fi
exec runc "\${args[@]}"
`;
  writeFileSync(binaryName, script);
  chmodSync(binaryName, 0o755);
  const options = pack(
    'containerd.runc.v1.Options',
    Options.encode(Options.fromPartial({ binaryName })).finish(),
  );
  await shim.run({ options });
  const path = join(workshop.folder, 'checkpoint');
  await shim.task.checkpoint({ id: shim.id, path });
  assert.equal(readFileSync(join(path, 'note'), 'utf8'), 'saved\n');
  await shim.moor.flush({});
  assert.ok(daemon.topics().includes('checkpointed'));

  const restored = await workshop.shim({ daemon });
  restored.writeSpec({ args: ['sh', '-c', 'exit 6'] });
  mkdirSync(join(restored.bundle, 'rootfs'));
  const rootfs = [{ type: 'bind', source: workshop.rootfs, options: ['bind'] }];
  const { id, bundle } = restored;
  assert.equal((await restored.task.create({ id, bundle, rootfs, options, checkpoint: path })).pid, 0);
  assert.equal((await restored.state()).status, 1);
  assert.ok((await restored.start()).pid > 0);
  assert.equal((await restored.wait()).exitStatus, 6);
  await restored.delete();
});

test('10 lives of a container leave no mount, cgroup or process behind', async () => {
  await using workshop = new Workshop();
  for (let round = 0; round < 10; round++) {
    const shim = await workshop.shim();
    const out = new Reader(workshop.folder, 'out').open();
    await shim.run({ args: ['sh', '-c', `echo ${round}; exit ${round}`], stdout: out.path });
    assert.equal((await shim.wait()).exitStatus, round);
    assert.equal(await out.end(), `${round}\n`);
    await shim.delete();
    assert.ok(!readFileSync('/proc/self/mounts', 'utf8').includes(shim.bundle));
    assert.ok(!existsSync(`/sys/fs/cgroup/memory/${workshop.namespace}/${shim.id}`));
    const gone = new Promise((resolve) => shim.process.once('exit', resolve));
    await shim.task.shutdown({ id: shim.id });
    assert.equal(await gone, 0);
  }
  assert.deepEqual(readdirSync(join(workshop.folder, 'runc', workshop.namespace)), []);
});
