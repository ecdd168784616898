import type { Command } from 'commander';
import manifest from '../package.json' with { type: 'json' };
import type { Greeting } from '../client/greeting.ts';
import { globalsOf, withClient } from './session.ts';

export const VERSION = manifest.version;

export function addVersion(program: Command): void {
  program
    .command('version')
    .description('print the versions of client and daemon')
    .action(async (_flags: object, command: Command) => {
      console.log(`Client:\n  Version:  ${VERSION}\n  Node version: ${process.version}\n`);
      const greeting = await greetingOf(command);
      if (greeting !== undefined) return print(greeting);
      return withClient(command, async ({ client, call }) => {
        const [version, server] = await Promise.all([client.version(call), client.server(call)]);
        print({ version, server });
      });
    });
}

/** By the short way, when nothing is said of how long it may take. */
async function greetingOf(command: Command): Promise<Greeting | undefined> {
  const { address, namespace, timeout, connectTimeout } = globalsOf(command);
  if (timeout !== 0 || connectTimeout !== 0) return undefined;
  const { greet } = await import('../client/greeting.ts');
  return greet(address.replace(/^unix:(?:\/\/)?/, ''), namespace);
}

function print({ version: { version, revision }, server: { uuid } }: Greeting): void {
  console.log(`Server:\n  Version:  ${version}\n  Revision: ${revision}\n  UUID: ${uuid}`);
}
