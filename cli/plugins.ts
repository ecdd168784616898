import type { Command } from 'commander';
import type { Plugin } from '../client/client.ts';
import { withClient } from './session.ts';
import { formatOption, type FormatOptions, print, printListing, tabulate } from './table.ts';

interface PluginFlags extends FormatOptions {
  readonly quiet?: boolean;
  readonly detailed?: boolean;
}

export function addPlugins(program: Command): void {
  const plugins = program.command('plugins').alias('plugin').description('what the daemon is made of');
  plugins
    .command('list')
    .alias('ls')
    .description('list plugins')
    .argument('[filter...]', 'such as type==io.containerd.snapshotter.v1')
    .option('-q, --quiet', 'print only the ids')
    .option('-d, --detailed', 'print all that is known of each')
    .addOption(formatOption())
    .action(list);
}

async function list(filters: string[], flags: PluginFlags, command: Command): Promise<void> {
  await withClient(command, async ({ client, sdk, call }) => {
    const plugins = await client.plugins(filters, call);
    if (flags.quiet === true) return print(plugins.map(({ id }) => id));
    if (flags.detailed === true) {
      const codes = new Map(Object.entries(sdk.Code).map(([name, code]) => [code as number, name]));
      const nameOf = (code: number) => codes.get(code) ?? String(code);
      const lines = plugins.flatMap((plugin, index) => [
        ...(index > 0 ? [['', '', '', '']] : []),
        ...details(plugin, nameOf),
      ]);
      return print(tabulate(lines));
    }
    await printListing(
      {
        header: ['TYPE', 'ID', 'PLATFORMS', 'STATUS'],
        rows: plugins.map((plugin) => [plugin.type, plugin.id, platforms(plugin) || '-', statusOf(plugin)]),
        json: plugins.map((plugin) => ({ ...plugin, status: statusOf(plugin) })),
      },
      flags,
    );
  });
}

/** A plugin that has decided not to load says so in its error. */
function statusOf({ initErr }: Plugin): 'ok' | 'skip' | 'error' {
  if (initErr === undefined) return 'ok';
  return initErr.message.includes('skip plugin') ? 'skip' : 'error';
}

function platforms(plugin: Plugin): string {
  const names = plugin.platforms.map(({ os, architecture, variant }) =>
    [os || 'unknown', architecture, variant].filter((part) => part !== '').join('/'),
  );
  return [...new Set(names)].sort().join(',');
}

function details(plugin: Plugin, codeName: (code: number) => string): string[][] {
  const { type, id, requires, exports, capabilities, initErr } = plugin;
  const lines = [
    ['Type:', ` ${type}`],
    ['ID:', ` ${id}`],
  ];
  if (requires.length > 0) lines.push(['Requires:', ''], ...requires.map((each) => ['', ` ${each}`]));
  if (plugin.platforms.length > 0) lines.push(['Platforms:', ` ${platforms(plugin)}`]);
  const exported = Object.entries(exports);
  if (exported.length > 0) {
    lines.push(['Exports:', ''], ...exported.map(([key, value]) => ['', ` ${key} `, ` ${value}`]));
  }
  if (capabilities.length > 0) lines.push(['Capabilities:', ` ${capabilities.join(',')}`]);
  if (initErr !== undefined) {
    lines.push(
      ['Error:', ''],
      ['', ' Code:', ` ${codeName(initErr.code)}`],
      ['', ' Message:', ` ${initErr.message}`],
    );
  }
  return lines;
}
