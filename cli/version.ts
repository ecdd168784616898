import type { Command } from 'commander';
import manifest from '../package.json' with { type: 'json' };
import { withClient } from './session.ts';

export const VERSION = manifest.version;

export function addVersion(program: Command): void {
  program
    .command('version')
    .description('print the versions of client and daemon')
    .action((_flags: object, command: Command) => {
      console.log(`Client:\n  Version:  ${VERSION}\n  Node version: ${process.version}\n`);
      return withClient(command, async ({ client, call }) => {
        const [{ version, revision }, { uuid }] = await Promise.all([
          client.version(call),
          client.server(call),
        ]);
        console.log(`Server:\n  Version:  ${version}\n  Revision: ${revision}\n  UUID: ${uuid}`);
      });
    });
}
