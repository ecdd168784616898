import type { Command } from 'commander';
import { Failure } from './failure.ts';
import { goMessage } from './json.ts';
import { globalsOf } from './session.ts';
import { printJson } from './table.ts';

export function addShim(program: Command): void {
  const shim = program
    .command('shim')
    .description('ask a container’s shim, past the daemon')
    .option('--id <id>', 'the container')
    .option('--state <directory>', 'the daemon’s state directory (default: where its socket is)');
  shim
    .command('state')
    .description('show the state of the container’s process')
    .argument('[container]', 'in place of --id')
    .action(state);
}

async function state(container: string | undefined, _flags: object, command: Command): Promise<void> {
  const flags = command.optsWithGlobals<{ id?: string; state?: string }>();
  const { address, namespace, timeout } = globalsOf(command);
  const id = container ?? flags.id;
  if (id === undefined) throw new Failure('a container must be given');
  const { shimState, statusName } = await import('../client/client.ts');
  const call = timeout > 0 ? { timeout } : {};
  const answer = await shimState({ ...call, namespace, id, address, state: flags.state });
  const { status, ...rest } = answer;
  printJson({ ...goMessage(rest), status: statusName(status) });
}
