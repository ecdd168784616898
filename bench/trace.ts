/**
 * Where the milliseconds of a container's life go: each call of the API timed on both daemons, and within it each call of
 * runc (through a wrapper that notes the time); the same done by ctr; and the floor, runc alone. `bench/trace.ts [rounds]`
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import Table from 'cli-table3';
import { Options } from '../proto/gen/containerd/runtime/runc.ts';
import { ContainersDefinition } from '../proto/gen/containerd/services/containers.ts';
import { TasksDefinition } from '../proto/gen/containerd/services/tasks.ts';
import { Daemon, type Peer } from '../test/harness/daemon.ts';
import { Floor } from './floor.ts';
import { quantile } from './statistics.ts';

/** Milliseconds by step; runc's share of a step under the step's name and `: runc …`. */
type Steps = Map<string, number[]>;

const rounds = Number(process.argv[2] ?? 20);

/** A runc that notes, for each call, its verb and when it began and ended (nanoseconds since the epoch). */
function wrapper(directory: string): { binary: string; trace: string } {
  const trace = join(directory, 'runc.trace');
  const binary = join(directory, 'traced-runc');
  const verb =
    'for a in "$@"; do case $a in create|start|exec|kill|delete|ps|state|pause) v=$a; break;; esac; done';
  const script = `#!/bin/bash\nb=$EPOCHREALTIME\n${verb}\nrunc "$@"\nr=$?\necho "$v $b $EPOCHREALTIME" >> ${trace}\nexit $r\n`;
  writeFileSync(binary, script, { mode: 0o755 });
  writeFileSync(trace, '');
  return { binary, trace };
}

/** One life each time it is asked, noted in `steps`. */
async function* lives(peer: Peer, traced: boolean, steps: Steps): AsyncGenerator<void, void> {
  await using daemon = await Daemon.start(peer);
  const ctr = daemon.ctr();
  const { binary, trace } = wrapper(daemon.directory);
  await ctr.create('life', ['/bin/sleep', '1000']);
  using connection = daemon.connect();
  const containers = connection.service(ContainersDefinition, ctr.namespace);
  const tasks = connection.service(TasksDefinition, ctr.namespace);
  const { container } = await containers.get({ id: 'life' });
  const options = {
    typeUrl: 'containerd.runc.v1.Options',
    value: Buffer.from(Options.encode(Options.fromPartial({ binaryName: binary })).finish()),
  };
  const runtime = { name: 'io.containerd.runc.v2', options: traced ? options : undefined };
  const record = { ...container, runtime, createdAt: undefined, updatedAt: undefined };
  await containers.delete({ id: 'life' });
  const note = (name: string, milliseconds: number) =>
    steps.set(name, [...(steps.get(name) ?? []), milliseconds]);
  const step = async <T>(name: string, call: Promise<T>): Promise<T> => {
    const began = performance.timeOrigin + performance.now();
    const answer = await call;
    note(name, performance.timeOrigin + performance.now() - began);
    for (const line of readFileSync(trace, 'utf8').trim().split('\n')) {
      const [verb, from, to] = line.split(' ');
      if (to !== undefined && Number(from) * 1000 >= began - 1)
        note(`${name}: runc ${verb}`, (Number(to) - Number(from)) * 1000);
    }
    return answer;
  };
  const process = { args: ['/bin/true'], cwd: '/', env: [], user: { uid: 0, gid: 0 } };
  const spec = {
    typeUrl: 'types.containerd.io/opencontainers/runtime-spec/1/Process',
    value: Buffer.from(JSON.stringify(process)),
  };
  const containerId = 'life';
  for (;;) {
    await step('containers.create', containers.create({ container: record }));
    await step('tasks.create', tasks.create({ containerId }));
    await step('tasks.start', tasks.start({ containerId }));
    await step('tasks.exec', tasks.exec({ containerId, execId: 'x', spec }));
    const exited = tasks.wait({ containerId, execId: 'x' });
    await step('start of exec', tasks.start({ containerId, execId: 'x' }));
    await step('wait for exec', exited);
    await step('delete of exec', tasks.deleteProcess({ containerId, execId: 'x' }));
    const ended = tasks.wait({ containerId });
    await step('tasks.kill', tasks.kill({ containerId, signal: 9 }));
    await step('wait for init', ended);
    await step('tasks.delete', tasks.delete({ containerId }));
    await step('containers.delete', containers.delete({ id: containerId }));
    if (!traced) {
      const { milliseconds } = await ctr.run('whole', ['/bin/true'], ['--rm']);
      note('ctr run --rm, all of it', milliseconds);
    }
    yield;
  }
}

const [ours, theirs, oursTraced, theirsTraced]: [Steps, Steps, Steps, Steps] = [
  new Map(),
  new Map(),
  new Map(),
  new Map(),
];

/** A floor for the specification that ctr has this daemon store. */
async function floorOf(daemon: Daemon): Promise<Floor> {
  const ctr = daemon.ctr();
  await ctr.runDetached('model', ['/bin/sleep', '1000']);
  const config = join(daemon.bundle(ctr.namespace, 'model'), 'config.json');
  const floor = new Floor(join(daemon.directory, 'floor'), config);
  await ctr.remove('model');
  return floor;
}

await using model = await Daemon.start('moord');
using floor = await floorOf(model);
const all = [
  lives('moord', false, ours),
  lives('containerd', false, theirs),
  lives('moord', true, oursTraced),
  lives('containerd', true, theirsTraced),
];
try {
  // In turn, so that all see the same machine.
  for (let round = 0; round < rounds; round += 1) {
    for (const one of all) await one.next();
    await floor.live();
  }
} finally {
  for (const one of all) await one.return();
}
const table = new Table({ head: ['step', 'Moor', 'containerd'], style: { head: [], border: [] } });
const median = (samples: number[] | undefined) =>
  samples === undefined ? '' : quantile(samples, 0.5).toFixed(1);
for (const name of new Set([...ours.keys(), ...theirs.keys()])) {
  table.push([name, median(ours.get(name)), median(theirs.get(name))]);
  const parts = new Set(
    [...oursTraced.keys(), ...theirsTraced.keys()].filter((part) => part.startsWith(`${name}: `)),
  );
  for (const part of parts)
    table.push([part.replace(/.*: /, '    '), median(oursTraced.get(part)), median(theirsTraced.get(part))]);
}
console.log(table.toString());
console.log(`median ms of ${rounds} lives; runc's own times come from a second pass through a wrapper`);
const alone = new Table({
  head: ['runc alone', 'from memory', 'from its file'],
  style: { head: [], border: [] },
});
for (const call of floor.file.keys())
  alone.push([`runc ${call}`, median(floor.memory.get(call)), median(floor.file.get(call))]);
console.log(alone.toString());
