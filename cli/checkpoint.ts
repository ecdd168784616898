/** `moor checkpoint` and `moor restore`: containers to images and back. */
import type { Command } from 'commander';
import { launch } from './launch.ts';
import { withClient } from './session.ts';
import { addStreamFlags, type StreamFlags } from './task-flags.ts';

interface CheckpointFlags {
  readonly rw?: boolean;
  readonly image?: boolean;
  readonly task?: boolean;
  readonly exit?: boolean;
}

interface RestoreFlags extends StreamFlags {
  readonly rw?: boolean;
  readonly live?: boolean;
}

export function addCheckpoint(program: Command): void {
  program
    .command('checkpoint')
    .description('write a container to an image')
    .argument('<container>')
    .argument('<image>', 'its name')
    .option('--rw', 'with what its root filesystem has become')
    .option('--image', 'with the image it was made from')
    .option('--task', 'with the memory of its processes, by means of CRIU')
    .option('--exit', 'stop it after that; with --task')
    .action((id: string, name: string, flags: CheckpointFlags, command: Command) =>
      withClient(command, async ({ client, call }) => {
        const { exit = false, ...parts } = flags;
        const image = await client.containers.checkpoint(id, name, { ...call, ...parts, runc: { exit } });
        console.log(image.name);
      }),
    );
  const restore = program
    .command('restore')
    .description('run a container that was written to an image')
    .argument('<container>', 'the new one')
    .argument('<image>')
    .option('--rw', 'with what its root filesystem had become')
    .option('--live', 'go on from the memory of its processes');
  addStreamFlags(restore).action((id: string, name: string, flags: RestoreFlags, command: Command) =>
    withClient(command, async (session) => {
      const { client, call } = session;
      const container = await client.containers.restore(id, name, { ...call, rw: flags.rw ?? false });
      const outcome = { started: false };
      try {
        const checkpoint = flags.live === true ? name : undefined;
        process.exitCode = await launch(session, container, { ...flags, checkpoint }, outcome);
      } finally {
        if (!outcome.started) await container[Symbol.asyncDispose]();
      }
    }),
  );
}
