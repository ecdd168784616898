import type { Command } from 'commander';
import type { ContainerInfo } from '../client/client.ts';
import { containerArguments, createContainer } from './container-creation.ts';
import { addContainerFlags, type ContainerFlags } from './container-flags.ts';
import { explain, Failure, FAILURE_STATUS } from './failure.ts';
import { rfc3339 } from './json.ts';
import { labelText, parseLabels } from './labels.ts';
import { type Session, withClient } from './session.ts';
import { formatOption, type FormatOptions, print, printListing } from './table.ts';

export function addContainers(program: Command): void {
  const containers = program
    .command('containers')
    .aliases(['container', 'c'])
    .description('containers, running or not');
  const create = containers
    .command('create')
    .description('store a container without running it')
    .usage('[options] <image> <id> [command] [arg...]')
    .argument('[words...]')
    .passThroughOptions();
  addContainerFlags(create).action((words: string[], flags: ContainerFlags, command: Command) => {
    const args = containerArguments(words, flags);
    return withClient(command, async (session) => {
      await createContainer(session, args, flags);
    });
  });
  containers
    .command('list')
    .alias('ls')
    .description('list containers')
    .argument('[filter...]', 'such as labels."app"==web')
    .option('-q, --quiet', 'print only the ids')
    .addOption(formatOption())
    .action(list);
  containers
    .command('info')
    .description('show all that is stored of a container')
    .argument('<container>')
    .option('--spec', 'show only the OCI specification')
    .action(info);
  containers
    .command('label')
    .description('set labels of a container; an empty value clears one')
    .argument('<container>')
    .argument('[key=value...]')
    .action((id: string, pairs: string[], _flags: object, command: Command) =>
      withClient(command, async ({ client, call }) => {
        const container = await client.containers.get(id, call);
        console.log(labelText(await container.label(parseLabels(pairs), call)));
      }),
    );
  containers
    .command('delete')
    .aliases(['del', 'remove', 'rm'])
    .description('delete containers that do not run')
    .argument('<container...>')
    .option('--keep-snapshot', 'keep the snapshot of the root filesystem')
    .action(remove);
}

async function list(
  filters: string[],
  flags: FormatOptions & { quiet?: boolean },
  command: Command,
): Promise<void> {
  await withClient(command, async ({ client, sdk, call }) => {
    const containers = (await client.containers.list(filters, call)).map(({ info }) => info);
    if (flags.quiet === true) return print(containers.map(({ id }) => id));
    await printListing(
      {
        header: ['CONTAINER', 'IMAGE', 'RUNTIME'],
        rows: containers.map(({ id, image, runtime }) => [id, image || '-', runtime?.name ?? '']),
        json: containers.map(({ id, image, runtime, labels, createdAt }) => ({
          id,
          image,
          runtime: runtime?.name,
          labels,
          createdAt: sdk.dateOf(createdAt),
        })),
      },
      flags,
    );
  });
}

async function info(id: string, { spec }: { spec?: boolean }, command: Command): Promise<void> {
  await withClient(command, async ({ client, call }) => {
    const container = await client.containers.get(id, call);
    const value = spec === true ? container.spec : infoOf(container.info);
    console.log(JSON.stringify(value, undefined, 4));
  });
}

/** With the names that ctr's output has. */
function infoOf(container: ContainerInfo): object {
  const any = (value: { typeUrl: string; value: Uint8Array }) => ({
    type_url: value.typeUrl,
    ...(value.value.length > 0 ? { value: Buffer.from(value.value).toString('base64') } : {}),
  });
  const { labels, extensions, runtime, spec } = container;
  const orNull = (map: object) => (Object.keys(map).length === 0 ? null : map);
  return {
    ID: container.id,
    Labels: orNull(labels),
    Image: container.image,
    Runtime: {
      Name: runtime?.name ?? '',
      Options: runtime?.options === undefined ? null : any(runtime.options),
    },
    SnapshotKey: container.snapshotKey,
    Snapshotter: container.snapshotter,
    CreatedAt: rfc3339(container.createdAt),
    UpdatedAt: rfc3339(container.updatedAt),
    Extensions: orNull(
      Object.fromEntries(Object.entries(extensions).map(([name, value]) => [name, any(value)])),
    ),
    Spec: spec === undefined ? null : (JSON.parse(spec.value.toString()) as object),
  };
}

async function remove(ids: string[], flags: RemoveFlags, command: Command): Promise<void> {
  await withClient(command, async (session) => {
    for (const id of ids) {
      try {
        await removeOne(session, id, flags);
      } catch (error) {
        for (const line of explain(error, session.globals)) console.error(line);
        process.exitCode = FAILURE_STATUS;
      }
    }
  });
}

interface RemoveFlags {
  readonly keepSnapshot?: boolean;
}

async function removeOne(
  { client, sdk, call, globals }: Session,
  id: string,
  { keepSnapshot }: RemoveFlags,
): Promise<void> {
  const container = await client.containers.get(id, call);
  try {
    const task = await container.task(call);
    const status = await task.status(call);
    if (status !== 'STOPPED' && status !== 'CREATED') {
      throw new Failure(
        `cannot delete a non stopped container: ${id} is ${status.toLowerCase()}`,
        `stop it first: moor --namespace ${globals.namespace} tasks rm --force ${id}`,
      );
    }
    await task.delete({ ...call, force: status === 'CREATED' });
  } catch (error) {
    if (!sdk.isCode(error, sdk.Code.NotFound)) throw error;
  }
  await container.delete({ ...call, keepSnapshot });
}
