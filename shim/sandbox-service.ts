import { getPid } from '../native/native.ts';
import type { SandboxDefinition } from '../proto/gen/containerd/runtime/sandbox.ts';
import { alreadyExists, failedPrecondition, invalidArgument, notFound } from '../ttrpc/errors.ts';
import type { ServiceImplementation } from '../ttrpc/service.ts';
import type { Berth } from './berth.ts';
import type { Log } from './log.ts';
import { Sandbox } from './sandbox.ts';
import { before } from './service.ts';

const SIGKILL = 9;

/** Node's names of processors in Go's words. */
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' };

/** What the sandbox service needs of the shim around it. */
export interface SandboxSurroundings {
  readonly berth: Berth;
  readonly log: Log;
  /** Ends the shim, once the answer that is being given is written. */
  readonly shutdown: (delivered: Promise<unknown>) => void;
}

/**
 * The sandbox service: a shim becomes a sandbox's by `CreateSandbox`, and ends by `ShutdownSandbox`. Until then it answers for the
 * sandbox, stopped ones too, so that a daemon that was away learns when it has ended.
 */
export function sandboxService({
  berth,
  log,
  shutdown,
}: SandboxSurroundings): ServiceImplementation<typeof SandboxDefinition> {
  const demand = ({ sandboxId }: { sandboxId: string }): Sandbox => {
    const { sandbox } = berth;
    if (sandbox?.id !== sandboxId) throw notFound(`sandbox ${sandboxId} is not in this shim: not found`);
    return sandbox;
  };

  const stop = async (sandbox: Sandbox): Promise<void> => {
    const kills = berth.containers
      .filter(({ init }) => init.exit === undefined)
      .map(({ id, init }) =>
        init.kill(SIGKILL, true).catch((error: unknown) => {
          log.warn('a container of a sandbox that is stopped cannot be killed', { id, error });
        }),
      );
    await Promise.all(kills);
    sandbox.stop();
  };

  return {
    createSandbox: async ({ sandboxId }) => {
      if (sandboxId === '') throw invalidArgument('the id of the sandbox is missing: invalid argument');
      if (berth.sandbox !== undefined)
        throw alreadyExists(`this shim has the sandbox ${berth.sandbox.id}: already exists`);
      const [container] = berth.containers;
      if (container !== undefined)
        throw failedPrecondition(`this shim has the container ${container.id}: failed precondition`);
      berth.sandbox = new Sandbox(sandboxId);
      return {};
    },

    startSandbox: async (request) => {
      const sandbox = demand(request);
      sandbox.start();
      return { pid: getPid(), createdAt: sandbox.createdAt };
    },

    platform: async (request) => {
      demand(request);
      const architecture = ARCHITECTURES[process.arch] ?? process.arch;
      return { platform: { os: process.platform, architecture } };
    },

    stopSandbox: async (request) => {
      await stop(demand(request));
      return {};
    },

    waitSandbox: async (request, { signal }) => ({
      exitStatus: 0,
      exitedAt: await before(signal, demand(request).ended),
    }),

    sandboxStatus: async (request) => {
      const { id, state, createdAt } = demand(request);
      const isReady = state.kind === 'ready';
      return {
        sandboxId: id,
        pid: isReady ? getPid() : 0,
        state: isReady ? 'SANDBOX_READY' : 'SANDBOX_NOTREADY',
        createdAt,
        exitedAt: state.kind === 'stopped' ? state.exitedAt : undefined,
      };
    },

    pingSandbox: async (request) => {
      demand(request);
      return {};
    },

    shutdownSandbox: async (request) => {
      const sandbox = demand(request);
      await stop(sandbox);
      // What runs in it has been killed, and is for the daemon to delete, which cleans up after the shim.
      shutdown(Promise.resolve());
      return {};
    },

    // It has no process to measure; its containers are measured one by one.
    sandboxMetrics: async (request) => {
      demand(request);
      return {};
    },
  };
}
