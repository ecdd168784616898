import type { Command } from 'commander';
import { withClient } from './session.ts';
import { formatOption, type FormatOptions, print, printJson, tabulate } from './table.ts';

export function addInfo(program: Command): void {
  program
    .command('info')
    .description('summarize the daemon: who it is, what it runs, what is wrong with it')
    .addOption(formatOption())
    .action(info);
}

async function info({ format }: FormatOptions, command: Command): Promise<void> {
  await withClient(command, async ({ client, sdk, call }) => {
    const [version, server, namespaces, plugins] = await Promise.all([
      client.version(call),
      client.server(call),
      client.namespaces.list('', call),
      client.plugins([], call),
    ]);
    const counted = namespaces.map(async ({ name }) => {
      const inside = client.in(name);
      const [containers, tasks] = await Promise.all([inside.containers.list([], call), inside.tasks(call)]);
      const running = tasks.filter(({ status }) => sdk.statusName(status) === 'RUNNING').length;
      return { name, containers: containers.length, tasks: tasks.length, running };
    });
    const summary = {
      address: client.address,
      version: version.version,
      revision: version.revision,
      uuid: server.uuid,
      pid: server.pid === 0n ? undefined : Number(server.pid),
      namespaces: await Promise.all(counted),
      failedPlugins: plugins
        .filter(({ initErr }) => initErr !== undefined && !initErr.message.includes('skip plugin'))
        .map(({ type, id, initErr }) => ({ type, id, error: initErr?.message })),
    };
    if (format === 'json') return printJson(summary);
    print(
      tabulate(
        [
          ['Address:', summary.address],
          ['Version:', `${summary.version} ${summary.revision}`.trim()],
          ['UUID:', summary.uuid],
          ...(summary.pid === undefined ? [] : [['Process:', String(summary.pid)]]),
          ...summary.namespaces.map(({ name, containers, running }) => [
            'Namespace:',
            `${name}: ${containers} containers, ${running} running`,
          ]),
          ...summary.failedPlugins.map(({ type, id, error }) => [
            'Failed plugin:',
            `${type}.${id}: ${error}`,
          ]),
        ],
        [0, 2],
      ),
    );
  });
}
