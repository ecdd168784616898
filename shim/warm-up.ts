import { closeSync, constants, mkdirSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';
import { mkfifo, setChildSubreaper, socketPair } from '../native/native.ts';
import { EventsDefinition } from '../proto/gen/containerd/services/events_ttrpc.ts';
import { Options } from '../proto/gen/containerd/runtime/runc.ts';
import { TaskDefinition } from '../proto/gen/containerd/task/v3.ts';
import { TtrpcClient } from '../ttrpc/client.ts';
import { TtrpcServer } from '../ttrpc/server.ts';
import type { ServiceClient } from '../ttrpc/service.ts';
import { pack } from './any.ts';
import { Berth } from './berth.ts';
import { Log } from './log.ts';
import { Publisher } from './publisher.ts';
import { Reaper } from './reaper.ts';
import { taskService } from './service.ts';

const STDERR = 2;
const SIGKILL = 9;
/** V8 keeps what it learns of a function from its second run on, and prepares it for speed after a few. */
const ROUNDS = 4;
const FLUSH_MS = 5000;
const PROCESS_TYPE = 'types.containerd.io/opencontainers/runtime-spec/1/Process';

/** Does what the shim asks of an OCI runtime, with a process that is no container. It ends soon after a template that is killed. */
const RUNTIME = `#!/bin/sh
for word; do
  [ "$before" = --pid-file ] && file=$word
  case $word in create | exec) begin=$word ;; esac
  before=$word
done
[ -z "$begin" ] && exit
while kill -0 $PPID; do sleep 1; done >/dev/null 2>&1 &
echo $! >"$file"
`;

/** A container with a PID namespace of its own, so that its descriptors are the client's FIFOs. */
const SPEC = JSON.stringify({ ociVersion: '1.0.2', linux: { namespaces: [{ type: 'pid' }] } });

/**
 * Does a few times what every shim does, with a stand-in for the runtime: what V8 has parsed, compiled and learnt by then is shared
 * by all shims that are forked.
 *
 * @param scratch a directory of its own, made and removed here; what a killed predecessor has left there goes first
 */
export async function warmUp(scratch: string): Promise<void> {
  rmSync(scratch, { recursive: true, force: true });
  mkdirSync(scratch, { recursive: true, mode: 0o700 });
  const events = join(scratch, 'e');
  const binaryName = join(scratch, 'runtime');
  writeFileSync(binaryName, RUNTIME, { mode: 0o700 });
  const daemon = new TtrpcServer().add(EventsDefinition, { forward: async () => ({}) });
  await daemon.listen(events);
  try {
    for (let round = 0; round < ROUNDS; round += 1) {
      await oneLife(join(scratch, `bundle-${round}`), events, binaryName);
    }
  } finally {
    await daemon.close();
    rmSync(scratch, { recursive: true, force: true });
  }
}

async function oneLife(bundle: string, events: string, binaryName: string): Promise<void> {
  mkdirSync(join(bundle, 'rootfs'), { recursive: true });
  writeFileSync(join(bundle, 'config.json'), SPEC);
  const stdout = join(bundle, 'stdout');
  mkfifo(stdout, 0o600);
  const reader = openSync(stdout, constants.O_RDONLY | constants.O_NONBLOCK);
  const log = new Log(STDERR, 'error');
  const reaper = new Reaper();
  const publisher = new Publisher(events, 'warm-up', log);
  const service = taskService({
    namespace: 'warm-up',
    reaper,
    publisher,
    log,
    shutdown: () => {},
    berth: new Berth(),
  });
  const server = new TtrpcServer().add(TaskDefinition, service);
  const [ours, theirs] = socketPair();
  server.serve(new Socket({ fd: ours }));
  const client = new TtrpcClient(new Socket({ fd: theirs }));
  reaper.start();
  try {
    await live(client.service(TaskDefinition), { bundle, stdout, binaryName });
    await publisher.flush(AbortSignal.timeout(FLUSH_MS));
  } finally {
    reaper.stop();
    setChildSubreaper(false);
    publisher.close();
    client.close();
    await server.close();
    closeSync(reader);
  }
}

async function live(
  task: ServiceClient<typeof TaskDefinition>,
  { bundle, stdout, binaryName }: { bundle: string; stdout: string; binaryName: string },
): Promise<void> {
  const id = 'warm-up';
  const options = pack(
    'containerd.runc.v1.Options',
    Options.encode(Options.fromPartial({ binaryName })).finish(),
  );
  await task.create({ id, bundle, stdout, options });
  const ended = task.wait({ id });
  await task.start({ id });
  const spec = pack(PROCESS_TYPE, Buffer.from('{}'));
  await task.exec({ id, execId: 'exec', stdout, spec });
  await task.start({ id, execId: 'exec' });
  await task.state({ id });
  await task.kill({ id, execId: 'exec', signal: SIGKILL });
  await task.wait({ id, execId: 'exec' });
  await task.delete({ id, execId: 'exec' });
  await task.kill({ id, signal: SIGKILL });
  await ended;
  await task.delete({ id });
  await task.shutdown({ id });
}
