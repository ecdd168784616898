import type { Command } from 'commander';
import type { ExecOptions, oci } from '../client/client.ts';
import { attend, PATIENCE_MS } from './attachment.ts';
import { Failure, launching } from './failure.ts';
import { collect } from './labels.ts';
import { type Session, withClient } from './session.ts';
import { addStreamFlags, type StreamFlags, streamsOf } from './task-flags.ts';

interface ExecFlags extends StreamFlags {
  readonly cwd?: string;
  readonly env?: string[];
  readonly tty?: boolean;
  readonly execId?: string;
  readonly user?: string;
}

export function addExec(tasks: Command): void {
  const command = tasks
    .command('exec')
    .summary('execute another process in a container')
    .description('Execute another process in a running container. The exit status is as with run.')
    .usage('[options] <container> <command> [arg...]')
    .argument('<container>')
    .argument('<command...>')
    .passThroughOptions()
    .option('--exec-id <id>', 'id of the process (default: a random one)')
    .option('--cwd <directory>', 'working directory of the process')
    .option('--env <name=value>', 'environment variable; a name alone removes it (repeatable)', collect)
    .option('--user <user[:group]>', 'who to run as')
    .option('-t, --tty', 'give the process a terminal');
  addStreamFlags(command).action((id: string, args: string[], flags: ExecFlags, command: Command) =>
    launching(() => exec(id, args, flags, command)),
  );
}

async function exec(id: string, args: string[], flags: ExecFlags, command: Command): Promise<void> {
  const terminal = flags.tty === true;
  const stdio = streamsOf(flags, terminal);
  await withClient(command, async (session) => {
    const { client, call } = session;
    const container = await client.containers.get(id, call);
    const task = await container.task(call);
    const options = processOf(session, container.spec, flags);
    const target = await task.exec({ ...call, ...options, id: flags.execId, args, stdio });
    const start = () => target.start({ ...call, patience: PATIENCE_MS });
    if (flags.detach === true) {
      await start();
      target.detach();
      return;
    }
    let deleted = false;
    try {
      const { code } = await attend(session, target, { terminal, signals: flags.sigProxy }, start);
      await target.delete(call);
      deleted = true;
      process.exitCode = code;
    } finally {
      if (!deleted) await target.delete().catch(() => {});
    }
  });
}

function processOf(
  { sdk }: Session,
  spec: oci.Spec,
  { cwd, env = [], user, tty }: ExecFlags,
): Partial<ExecOptions> {
  const inherited = spec.process?.env ?? [];
  const terminal = tty === true && !inherited.some((variable) => variable.startsWith('TERM='));
  return {
    cwd,
    env: sdk.withEnvironment(inherited, [...(terminal ? ['TERM=xterm'] : []), ...env]),
    user: user === undefined ? undefined : userIn(sdk, spec, user),
  };
}

function userIn(sdk: Session['sdk'], spec: oci.Spec, user: string): oci.User {
  const rootfs = spec.root?.path ?? '';
  if (/^\d+:\d+$/.test(user) || rootfs.startsWith('/')) return sdk.lookUpUser(user, rootfs);
  throw new Failure(
    `cannot look up ${user}: the root filesystem is not a directory of this host`,
    'give UID:GID',
  );
}
