import { readdirSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { explain, FAILURE_STATUS } from './failure.ts';
import { labelText, parseLabels } from './labels.ts';
import { withClient } from './session.ts';
import { formatOption, type FormatOptions, print, printListing } from './table.ts';

export function addNamespaces(program: Command): void {
  const namespaces = program
    .command('namespaces')
    .aliases(['namespace', 'ns'])
    .description('worlds of containers that do not see each other');
  namespaces
    .command('create')
    .alias('c')
    .description('create a namespace')
    .argument('<name>')
    .argument('[key=value...]')
    .action((name: string, pairs: string[], _flags: object, command: Command) =>
      withClient(command, async ({ client, call }) => {
        await client.namespaces.create(name, parseLabels(pairs), call);
      }),
    );
  namespaces
    .command('list')
    .alias('ls')
    .description('list namespaces')
    .option('-q, --quiet', 'print only the names')
    .addOption(formatOption())
    .action(list);
  namespaces
    .command('label')
    .description('set labels of a namespace; an empty value clears one')
    .argument('<name>')
    .argument('[key=value...]')
    .action((name: string, pairs: string[], _flags: object, command: Command) =>
      withClient(command, async ({ client, call }) => {
        if (pairs.length > 0) await client.namespaces.label(name, parseLabels(pairs), call);
      }),
    );
  namespaces
    .command('remove')
    .aliases(['rm', 'delete', 'del'])
    .description('remove namespaces that are empty')
    .argument('<name...>')
    .option('-c, --cgroup', 'remove its cgroup as well')
    .action(remove);
}

async function list(flags: FormatOptions & { quiet?: boolean }, command: Command): Promise<void> {
  await withClient(command, async ({ client, call }) => {
    const namespaces = await client.namespaces.list('', call);
    if (flags.quiet === true) return print(namespaces.map(({ name }) => name));
    await printListing(
      {
        header: ['NAME', 'LABELS'],
        rows: namespaces.map(({ name, labels }) => [name, labelText(labels)]),
        json: namespaces,
        spacing: [1, 1],
      },
      flags,
    );
  });
}

async function remove(names: string[], { cgroup }: { cgroup?: boolean }, command: Command): Promise<void> {
  await withClient(command, async ({ client, sdk, call, globals }) => {
    for (const name of names) {
      try {
        await client.namespaces.delete(name, call).catch((error: unknown) => {
          // Removing twice is no mistake, as with ctr.
          if (!sdk.isCode(error, sdk.Code.NotFound)) throw error;
        });
        if (cgroup === true) removeCgroup(name);
        console.log(name);
      } catch (error) {
        for (const line of explain(error, globals)) console.error(line);
        process.exitCode = FAILURE_STATUS;
      }
    }
  });
}

const CGROUPS = '/sys/fs/cgroup';

/** In each hierarchy of version 1, and in the one of version 2. One that was never made is no failure. */
function removeCgroup(namespace: string): void {
  const hierarchies = readdirSync(CGROUPS, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  for (const directory of [CGROUPS, ...hierarchies.map(({ name }) => join(CGROUPS, name))]) {
    try {
      rmdirSync(join(directory, namespace));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
}
