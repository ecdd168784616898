/** Pods under crictl's names for what is done with them; `moor pods` has the same. */
import { type Command, Option } from 'commander';
import { Failure } from '../failure.ts';
import { collect, parseLabels } from '../labels.ts';
import { listPods, statusObject } from '../pods.ts';
import { type Session, withClient } from '../session.ts';
import { podConfig } from './config-file.ts';
import { forEachOf } from './each.ts';
import {
  type ObjectFlags,
  type OutputFlags,
  addObjectFlags,
  addOutputFlags,
  count,
  formatOf,
  pattern,
  printObject,
} from './selection.ts';

interface PodFlags extends OutputFlags {
  readonly id?: string;
  readonly name?: RegExp;
  readonly namespace?: RegExp;
  readonly state?: 'ready' | 'notready';
  readonly label?: readonly string[];
  readonly latest?: boolean;
  readonly last?: number;
  readonly quiet?: boolean;
}

interface InspectFlags extends ObjectFlags {
  readonly quiet?: boolean;
}

export function addPodCommands(cri: Command): void {
  const pods = cri
    .command('pods')
    .description('list pods')
    .option('--id <id>', 'one pod')
    .option('--name <pattern>', 'those with such a name: a regular expression', pattern)
    .option('--namespace <pattern>', 'those in such a namespace: a regular expression', pattern)
    .addOption(new Option('-s, --state <state>', 'those in one state').choices(['ready', 'notready']))
    .option('--label <key=value>', 'those with a label (repeatable)', collect)
    .option('-l, --latest', 'the newest one')
    .option('-n, --last <number>', 'the newest ones', count)
    .option('-q, --quiet', 'print only the ids');
  addOutputFlags(pods).action((flags: PodFlags, command: Command) =>
    withClient(command, (session) => list(session, flags)),
  );
  const inspecting = cri
    .command('inspectp')
    .description('show all that is known of pods')
    .argument('<pod...>')
    .option('-q, --quiet', 'leave out what only this runtime says');
  addObjectFlags(inspecting).action((ids: string[], flags: InspectFlags, command: Command) =>
    withClient(command, (session) => inspect(session, ids, flags)),
  );
  cri
    .command('runp')
    .description('run a pod')
    .argument('<pod-config.json>')
    .option('-r, --runtime <handler>', 'the runtime handler')
    .action((file: string, { runtime = '' }: { runtime?: string }, command: Command) =>
      withClient(command, async ({ client, call }) => {
        const request = { config: await podConfig(file), runtimeHandler: runtime };
        console.log((await client.kubernetes.runtime.runPodSandbox(request, call)).podSandboxId);
      }),
    );
  cri
    .command('stopp')
    .description('stop pods and all that runs in them')
    .argument('<pod...>')
    .action((ids: string[], _flags: object, command: Command) =>
      withClient(command, (session) => stop(session, ids)),
    );
  cri
    .command('rmp')
    .description('remove pods')
    .argument('[pod...]')
    .option('-f, --force', 'those that run, too')
    .option('-a, --all', 'all there are')
    .action((ids: string[], flags: { force?: boolean; all?: boolean }, command: Command) =>
      withClient(command, (session) => remove(session, ids, flags)),
    );
}

async function list(session: Session, flags: PodFlags): Promise<void> {
  const { id = '', name, namespace, state, label = [] } = flags;
  const { SANDBOX_READY, SANDBOX_NOTREADY } = session.sdk.PodSandboxState;
  const states = { ready: SANDBOX_READY, notready: SANDBOX_NOTREADY };
  const filter = {
    id,
    labelSelector: parseLabels(label),
    ...(state !== undefined && { state: { state: states[state] } }),
  };
  const last = flags.latest === true ? 1 : flags.last;
  const { items } = await session.client.kubernetes.runtime.listPodSandbox({ filter }, session.call);
  const found = items
    .filter(({ metadata }) => name?.test(metadata?.name ?? '') ?? true)
    .filter(({ metadata }) => namespace?.test(metadata?.namespace ?? '') ?? true)
    .toSorted((a, b) => Number(b.createdAt - a.createdAt));
  const shown = found.slice(0, last === undefined || last === 0 ? found.length : last);
  await listPods(session, shown, { ...formatOf(flags), quiet: flags.quiet });
}

async function inspect(
  { client, call }: Session,
  ids: readonly string[],
  flags: InspectFlags,
): Promise<void> {
  const verbose = flags.quiet !== true;
  const all: object[] = [];
  for (const podSandboxId of ids)
    all.push(statusObject(await client.kubernetes.runtime.podSandboxStatus({ podSandboxId, verbose }, call)));
  await printObject(all.length === 1 ? all[0] : all, flags);
}

async function stop(session: Session, ids: readonly string[]): Promise<void> {
  const { runtime } = session.client.kubernetes;
  await forEachOf(session, ids, async (podSandboxId) => {
    // Kubelet takes what is not there for done; a person has mistyped it.
    await runtime.podSandboxStatus({ podSandboxId }, session.call);
    await runtime.stopPodSandbox({ podSandboxId }, session.call);
    console.log(`Stopped sandbox ${podSandboxId}`);
  });
}

async function remove(
  session: Session,
  ids: readonly string[],
  { force = false, all = false }: { force?: boolean; all?: boolean },
): Promise<void> {
  const { runtime } = session.client.kubernetes;
  if (all === ids.length > 0)
    throw new Failure(all ? 'give ids or --all, not both' : 'name a pod, or give --all');
  const meant = all ? (await runtime.listPodSandbox({}, session.call)).items.map(({ id }) => id) : ids;
  await forEachOf(session, meant, async (podSandboxId) => {
    const { status } = await runtime.podSandboxStatus({ podSandboxId }, session.call);
    if (status?.state === session.sdk.PodSandboxState.SANDBOX_READY) {
      if (!force)
        throw new Failure(`pod ${podSandboxId} is running`, 'stop it first, or remove it with --force');
      await runtime.stopPodSandbox({ podSandboxId }, session.call);
    }
    await runtime.removePodSandbox({ podSandboxId }, session.call);
    console.log(`Removed sandbox ${podSandboxId}`);
  });
}
