/** Containers of pods: listed, looked at, made, started, stopped, removed. */
import { glob, rm } from 'node:fs/promises';
import type { Command } from 'commander';
import { Failure } from '../failure.ts';
import { goMessage } from '../json.ts';
import { SHORT_ID, ageOf, statusObject } from '../pods.ts';
import { type Session, withClient } from '../session.ts';
import { print, printListing } from '../table.ts';
import { containerConfig, podConfig } from './config-file.ts';
import { forEachOf } from './each.ts';
import {
  type ObjectFlags,
  type OutputFlags,
  POD_NAME,
  POD_NAMESPACE,
  RUNNING,
  type Selection,
  STATES,
  addObjectFlags,
  addOutputFlags,
  addSelectionFlags,
  count,
  formatOf,
  printObject,
  selected,
} from './selection.ts';

interface ListFlags extends OutputFlags, Selection {
  readonly quiet?: boolean;
  readonly trunc: boolean;
}

interface InspectFlags extends ObjectFlags, Selection {
  readonly quiet?: boolean;
}

export function addContainers(cri: Command): void {
  const ps = cri
    .command('ps')
    .description('list containers of pods that run')
    .option('-a, --all', 'those that do not run, too')
    .option('-q, --quiet', 'print only the ids')
    .option('--no-trunc', 'print whole ids');
  addOutputFlags(addSelectionFlags(ps)).action((flags: ListFlags, command: Command) =>
    withClient(command, (session) => list(session, flags)),
  );
  const inspecting = cri
    .command('inspect')
    .description('show all that is known of containers')
    .argument('[container...]', 'those that are meant (default: by the filters)')
    .option('-a, --all', 'those that do not run, too')
    .option('-q, --quiet', 'leave out what only this runtime says');
  addObjectFlags(addSelectionFlags(inspecting)).action(
    (ids: string[], flags: InspectFlags, command: Command) =>
      withClient(command, (session) => inspect(session, ids, flags)),
  );
  cri
    .command('create')
    .description('make a container in a pod')
    .argument('<pod>')
    .argument('<container-config.json>')
    .argument('<pod-config.json>')
    .action((pod: string, file: string, podFile: string, _flags: object, command: Command) =>
      withClient(command, async (session) => console.log(await create(session, pod, file, podFile))),
    );
  cri
    .command('run')
    .description('run a pod with one container')
    .argument('<container-config.json>')
    .argument('<pod-config.json>')
    .option('-r, --runtime <handler>', 'the runtime handler')
    .action((file: string, podFile: string, flags: { runtime?: string }, command: Command) =>
      withClient(command, (session) => run(session, file, podFile, flags.runtime)),
    );
  cri
    .command('start')
    .description('start containers that have been created')
    .argument('<container...>')
    .action((ids: string[], _flags: object, command: Command) =>
      withClient(command, (session) =>
        forEachOf(session, ids, async (containerId) => {
          await session.client.kubernetes.runtime.startContainer({ containerId }, session.call);
          console.log(containerId);
        }),
      ),
    );
  cri
    .command('stop')
    .description('stop containers, with their stop signal and then by force')
    .argument('[container...]')
    .option('-t, --timeout <seconds>', 'what they get before they are killed', count, 0)
    .option('-a, --all', 'all that run')
    .action((ids: string[], flags: { timeout: number; all?: boolean }, command: Command) =>
      withClient(command, (session) => stop(session, ids, flags)),
    );
  cri
    .command('rm')
    .description('remove containers')
    .argument('[container...]')
    .option('-f, --force', 'those that run, too')
    .option('-a, --all', 'all there are')
    .option('-k, --keep-logs', 'leave their logs')
    .action((ids: string[], flags: RemoveFlags, command: Command) =>
      withClient(command, (session) => remove(session, ids, flags)),
    );
}

async function list(session: Session, flags: ListFlags): Promise<void> {
  const shown = await selected(session, flags);
  if (flags.quiet === true) return print(shown.map(({ id }) => id));
  const short = (id: string): string => (flags.trunc ? id.slice(0, SHORT_ID) : id);
  const { images } = await session.client.kubernetes.images.listImages({}, session.call);
  const names = new Map(images.map(({ id, repoTags, repoDigests }) => [id, repoTags[0] ?? repoDigests[0]]));
  await printListing(
    {
      header: ['CONTAINER', 'IMAGE', 'CREATED', 'STATE', 'NAME', 'ATTEMPT', 'POD ID', 'POD', 'NAMESPACE'],
      rows: shown.map(({ id, image, imageId, createdAt, state, metadata, podSandboxId, labels }) => [
        short(id),
        image?.userSpecifiedImage || askedOr(names.get(imageId), image?.image ?? '', imageId),
        ageOf(createdAt),
        STATES[state] ?? '',
        metadata?.name ?? '',
        String(metadata?.attempt ?? 0),
        short(podSandboxId),
        labels[POD_NAME] ?? '',
        labels[POD_NAMESPACE] ?? '',
      ]),
      json: shown.map(goMessage),
    },
    formatOf(flags),
  );
}

/** What was asked for; an image's name where that was its id, as it is with kubelet. */
function askedOr(name: string | undefined, asked: string, imageId: string): string {
  return asked === imageId ? (name ?? asked) : asked;
}

async function inspect(session: Session, ids: readonly string[], flags: InspectFlags): Promise<void> {
  const { client, call } = session;
  const meant = ids.length > 0 ? ids : (await selected(session, flags)).map(({ id }) => id);
  if (meant.length === 0) throw new Failure('no container is named, and none found', 'see moor cri ps -a');
  const all: object[] = [];
  for (const containerId of meant) {
    const verbose = flags.quiet !== true;
    all.push(statusObject(await client.kubernetes.runtime.containerStatus({ containerId, verbose }, call)));
  }
  await printObject(all.length === 1 ? all[0] : all, flags);
}

async function create(
  { client, call }: Session,
  pod: string,
  file: string,
  podFile: string,
): Promise<string> {
  const [config, sandboxConfig] = [await containerConfig(file), await podConfig(podFile)];
  const request = { podSandboxId: pod, config, sandboxConfig };
  return (await client.kubernetes.runtime.createContainer(request, call)).containerId;
}

async function run(session: Session, file: string, podFile: string, runtimeHandler = ''): Promise<void> {
  const { runtime } = session.client.kubernetes;
  const config = await podConfig(podFile);
  // What is wrong with it must not be found when there is a pod for it.
  await containerConfig(file);
  const { podSandboxId } = await runtime.runPodSandbox({ config, runtimeHandler }, session.call);
  const containerId = await create(session, podSandboxId, file, podFile);
  await runtime.startContainer({ containerId }, session.call);
  console.log(containerId);
}

async function stop(
  session: Session,
  ids: readonly string[],
  { timeout, all = false }: { timeout: number; all?: boolean },
): Promise<void> {
  const { client, call } = session;
  await forEachOf(session, await named(session, ids, all, {}), async (id) => {
    // Kubelet takes what is not there for done; a person has mistyped it.
    await client.kubernetes.runtime.containerStatus({ containerId: id }, call);
    await client.kubernetes.runtime.stopContainer({ containerId: id, timeout: BigInt(timeout) }, call);
    console.log(id);
  });
}

interface RemoveFlags {
  readonly force?: boolean;
  readonly all?: boolean;
  readonly keepLogs?: boolean;
}

async function remove(session: Session, ids: readonly string[], flags: RemoveFlags): Promise<void> {
  const { runtime } = session.client.kubernetes;
  const { force = false, all = false, keepLogs = false } = flags;
  await forEachOf(session, await named(session, ids, all, { all: true }), async (containerId) => {
    const { status } = await runtime.containerStatus({ containerId }, session.call);
    if (status?.state === RUNNING && !force)
      throw new Failure(`container ${containerId} is running`, 'stop it first, or remove it with --force');
    await runtime.removeContainer({ containerId }, session.call);
    console.log(containerId);
    const { logPath = '' } = status ?? {};
    if (keepLogs || logPath === '') return;
    for await (const rotated of glob(`${logPath}.*`)) await rm(rotated, { force: true });
    await rm(logPath, { force: true });
  });
}

/** @throws Failure when both or neither are given */
async function named(
  session: Session,
  ids: readonly string[],
  all: boolean,
  which: Selection,
): Promise<readonly string[]> {
  if (all === ids.length > 0)
    throw new Failure(all ? 'give ids or --all, not both' : 'name a container, or give --all');
  return all ? (await selected(session, which)).map(({ id }) => id) : ids;
}
