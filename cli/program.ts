import { Command, Option } from 'commander';
import { addCheckpoint } from './checkpoint.ts';
import { addCompletion } from './completion.ts';
import { addContainers } from './containers.ts';
import { parseDuration } from './duration.ts';
import { addContent } from './content/commands.ts';
import { addCri } from './cri/commands.ts';
import { addEvents } from './events.ts';
import { addImages } from './image/commands.ts';
import { addInfo } from './info.ts';
import { addLeases } from './leases.ts';
import { addMetrics } from './metrics.ts';
import { addNamespaces } from './namespaces.ts';
import { addNetwork } from './network.ts';
import { addPlugins } from './plugins.ts';
import { addPods } from './pods.ts';
import { addRun } from './run.ts';
import { addSandboxes } from './sandboxes.ts';
import { addShim } from './shim.ts';
import { addSnapshots } from './snapshots/commands.ts';
import { addTasks } from './tasks.ts';
import { addTop } from './top.ts';
import { addVersion, VERSION } from './version.ts';

/** containerd's variables are read, too, so that scripts for ctr find the daemon they mean. */
function environment(...names: string[]): string | undefined {
  return names.map((name) => process.env[name]).find((value) => value !== undefined && value !== '');
}

/** The tree of commands. */
export function createProgram(): Command {
  const program = new Command('moor')
    .description('The command line of Moor: containers that outlive their daemon.')
    .version(VERSION, '-v, --version', 'print the version of this command')
    .helpCommand(true)
    .enablePositionalOptions()
    .showSuggestionAfterError()
    .exitOverride()
    .configureOutput({
      // Printed with its hint where all failures are.
      outputError: () => {},
    })
    .addOption(
      new Option(
        '-a, --address <socket>',
        'the daemon’s socket; also MOOR_ADDRESS or CONTAINERD_ADDRESS',
      ).default(environment('MOOR_ADDRESS', 'CONTAINERD_ADDRESS') ?? '/run/moor/moor.sock'),
    )
    .addOption(
      new Option(
        '-n, --namespace <name>',
        'the namespace; also MOOR_NAMESPACE or CONTAINERD_NAMESPACE',
      ).default(environment('MOOR_NAMESPACE', 'CONTAINERD_NAMESPACE') ?? 'default'),
    )
    .option('--timeout <duration>', 'time for the command as a whole; 0 for ever', parseDuration, 0)
    .option('--connect-timeout <duration>', 'time to wait for the daemon; 0 not at all', parseDuration, 0)
    .option('--debug', 'print the stack of a failure');
  addRun(program);
  addTasks(program);
  addCheckpoint(program);
  addMetrics(program);
  addTop(program);
  addContainers(program);
  addImages(program);
  addContent(program);
  addSnapshots(program);
  addNamespaces(program);
  addNetwork(program);
  addPods(program);
  addSandboxes(program);
  addCri(program);
  addEvents(program);
  addPlugins(program);
  addLeases(program);
  addShim(program);
  addInfo(program);
  addVersion(program);
  addCompletion(program);
  return program;
}
