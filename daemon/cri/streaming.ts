/** Streams of exec, attach and port-forward, which kubelet fetches from an address of their own. */
import { failedPrecondition, invalidArgument } from '../../ttrpc/errors.ts';
import type { Calls, Cri } from './cri.ts';
import { attach, exec, runningContainer } from './process.ts';
import type { Targets, Wanted } from './streaming/session.ts';

export function streamingCalls(cri: Cri): Calls<'exec' | 'attach' | 'portForward'> {
  return {
    async exec({ containerId, cmd, tty, stdin, stdout, stderr }) {
      check({ tty, stdin, stdout, stderr });
      if (cmd.length === 0) throw invalidArgument('no command to execute: invalid argument');
      const { id } = runningContainer(cri, containerId);
      const wanted = { tty, stdin, stdout, stderr };
      return { url: await cri.streams.url({ kind: 'exec', containerId: id, command: cmd, ...wanted }) };
    },
    async attach({ containerId, tty, stdin, stdout, stderr }) {
      check({ tty, stdin, stdout, stderr });
      const { id } = runningContainer(cri, containerId);
      const wanted = { tty, stdin, stdout, stderr };
      return { url: await cri.streams.url({ kind: 'attach', containerId: id, ...wanted }) };
    },
    async portForward({ podSandboxId, port }) {
      if (podSandboxId === '')
        throw invalidArgument('the pod sandbox to forward to must be named: invalid argument');
      const { id } = readyPod(cri, podSandboxId);
      return { url: await cri.streams.url({ kind: 'portforward', podSandboxId: id, ports: port }) };
    },
  };
}

/** What the streaming server connects its clients with. */
export function targetsOf(cri: Cri): Targets {
  return {
    exec: (session, signal) => exec(cri, session, signal),
    attach: (session, signal) => attach(cri, session, signal),
    async network(podSandboxId) {
      const { netns } = readyPod(cri, podSandboxId);
      return netns === '' ? undefined : netns;
    },
  };
}

/** @throws RpcError InvalidArgument for streams that cannot be */
function check({ tty, stdin, stdout, stderr }: Wanted): void {
  // A terminal has one output.
  if (tty && stderr) throw invalidArgument('tty and stderr cannot both be true: invalid argument');
  if (!stdin && !stdout && !stderr)
    throw invalidArgument('one of stdin, stdout and stderr must be set: invalid argument');
}

/** @throws RpcError NotFound, FailedPrecondition */
function readyPod(cri: Cri, id: string): ReturnType<Cri['pods']['get']> {
  const pod = cri.pods.get(id);
  if (pod.state?.$case !== 'ready') throw failedPrecondition(`sandbox ${pod.id} is not running`);
  return pod;
}
