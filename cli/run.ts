import type { Command } from 'commander';
import { containerArguments, createContainer } from './container-creation.ts';
import { addContainerFlags, type ContainerFlags } from './container-flags.ts';
import { Failure, launching } from './failure.ts';
import { launch } from './launch.ts';
import { withClient } from './session.ts';
import { addStreamFlags, type StreamFlags, streamsOf } from './task-flags.ts';

interface RunFlags extends ContainerFlags, StreamFlags {
  readonly rm?: boolean;
}

export function addRun(program: Command): void {
  const command = program
    .command('run')
    .summary('run a container')
    .description(
      'Run a container from an image, or with --rootfs from a directory. The exit status is that of its process, 128+n when signal n ended it.\n' +
        '125, 126 and 127 say that no process could be run, as with docker.',
    )
    .usage('[options] <image> <id> [command] [arg...]')
    .argument('[words...]')
    .passThroughOptions()
    .option('--rm', 'remove the container when it has ended; not with --detach')
    .option(
      '--restart <policy>',
      'start it again when it ends: always, unless-stopped or on-failure[:maximum]; needs --detach',
    );
  addContainerFlags(addStreamFlags(command)).action((words: string[], flags: RunFlags, command: Command) =>
    launching(() => run(words, flags, command)),
  );
}

const isKept = ({ restart = 'no' }: ContainerFlags) => restart !== 'no';

async function run(words: string[], flags: RunFlags, command: Command): Promise<void> {
  const args = containerArguments(words, flags);
  if (flags.rm === true && flags.detach === true) {
    throw new Failure('--rm and --detach cannot be used together');
  }
  if (isKept(flags) && flags.detach !== true) throw new Failure('--restart needs --detach');
  // Checked before anything is made.
  streamsOf(flags, flags.tty === true);
  await withClient(command, async (session) => {
    const container = await createContainer(session, args, flags);
    const outcome = { started: false };
    try {
      process.exitCode = await launch(session, container, flags, outcome);
    } finally {
      // One that never ran is of no use to anybody, and in the way of the next attempt.
      if (!outcome.started || flags.rm === true) await container[Symbol.asyncDispose]();
    }
  });
}
