import type { Command } from 'commander';
import type { Container, Task, TaskProcess } from '../client/client.ts';
import { attend } from './attachment.ts';
import { addExec } from './exec.ts';
import { Failure, FAILURE_STATUS, explain, launching } from './failure.ts';
import { launch } from './launch.ts';
import { printMetrics } from './metrics.ts';
import { type Session, withClient } from './session.ts';
import { formatOption, type FormatOptions, print, printListing } from './table.ts';
import { addStreamFlags, type StreamFlags } from './task-flags.ts';

export function addTasks(program: Command): void {
  const tasks = program.command('tasks').aliases(['task', 't']).description('what runs: list, start, signal');
  tasks
    .command('list')
    .alias('ls')
    .description('list tasks')
    .option('-q, --quiet', 'print only the ids')
    .addOption(formatOption())
    .action(list);
  const start = tasks
    .command('start')
    .description('start a container that has been created')
    .argument('<container>')
    .option('--pid-file <file>', 'write the process id to a file')
    .option('--no-pivot', 'change the root without pivot_root(2)');
  addStreamFlags(start).action(startTask);
  addExec(tasks);
  tasks
    .command('attach')
    .description('connect to the streams of a container that runs')
    .argument('<container>')
    .option('--no-sig-proxy', 'do not send signals on to the process')
    .action(attach);
  tasks
    .command('kill')
    .description('send a signal to a container')
    .argument('<container>')
    .option('-s, --signal <signal>', 'name or number (default: the container’s stop signal, or SIGTERM)')
    .option('--exec-id <id>', 'send it to a process that was executed')
    .option('-a, --all', 'send it to every process of the container')
    .action(kill);
  tasks
    .command('pause')
    .description('freeze a container')
    .argument('<container>')
    .action(withTask((task, { call }) => task.pause(call)));
  tasks
    .command('resume')
    .description('thaw a container')
    .argument('<container>')
    .action(withTask((task, { call }) => task.resume(call)));
  tasks
    .command('ps')
    .description('list the processes of a container')
    .argument('<container>')
    .addOption(formatOption())
    .action(processes);
  tasks
    .command('metrics')
    .alias('metric')
    .description('read the counters of a container’s cgroup')
    .argument('<container>')
    .addOption(formatOption())
    .action((id: string, flags: FormatOptions, command: Command) =>
      withTask(async (task, { call }) => printMetrics(await task.metrics(call), flags))(id, flags, command),
    );
  tasks
    .command('delete')
    .aliases(['del', 'remove', 'rm'])
    .description('delete tasks that have ended')
    .argument('<container...>')
    .option('-f, --force', 'kill them first')
    .option('--exec-id <id>', 'delete a process that was executed')
    .action(remove);
  tasks
    .command('checkpoint')
    .description('write the state of a container with CRIU')
    .argument('<container>')
    .option('--exit', 'stop the container after that')
    .requiredOption('--image-path <directory>', 'where to write')
    .option('--work-path <directory>', 'where CRIU keeps its files and logs')
    .action(checkpoint);
}

async function containerTask({ client, call }: Session, id: string): Promise<[Container, Task]> {
  const container = await client.containers.get(id, call);
  return [container, await container.task(call)];
}

function withTask(act: (task: Task, session: Session) => Promise<void>) {
  return (id: string, _flags: object, command: Command) =>
    withClient(command, async (session) => {
      const [, task] = await containerTask(session, id);
      await act(task, session);
    });
}

async function list(flags: FormatOptions & { quiet?: boolean }, command: Command): Promise<void> {
  await withClient(command, async ({ client, sdk, call }) => {
    const tasks = (await client.tasks(call)).map(({ id, pid, status, exitStatus, exitedAt }) => ({
      id,
      pid,
      status: sdk.statusName(status),
      exitStatus,
      exitedAt: sdk.dateOf(exitedAt),
    }));
    if (flags.quiet === true) return print(tasks.map(({ id }) => id));
    await printListing(
      {
        header: ['TASK', 'PID', 'STATUS'],
        rows: tasks.map(({ id, pid, status }) => [id, String(pid), status]),
        json: tasks,
        filled: 'header',
      },
      flags,
    );
  });
}

type StartFlags = StreamFlags & { readonly pidFile?: string; readonly pivot?: boolean };

async function startTask(id: string, flags: StartFlags, command: Command): Promise<void> {
  await launching(() =>
    withClient(command, async (session) => {
      const container = await session.client.containers.get(id, session.call);
      await container.stoppedOnPurpose(false, session.call);
      process.exitCode = await launch(session, container, flags);
    }),
  );
}

async function attach(id: string, { sigProxy }: { sigProxy: boolean }, command: Command): Promise<void> {
  await launching(() =>
    withClient(command, async (session) => {
      const { client, call } = session;
      const container = await client.containers.get(id, call);
      const task = await container.task({ ...call, attach: true });
      const terminal = container.spec.process?.terminal === true;
      const options = { terminal, signals: sigProxy };
      const { code } = await attend(session, task, options, () => Promise.resolve());
      // It has ended with this client watching: as after `run`, the exit status is read.
      await task.delete(call).catch(() => {});
      process.exitCode = code;
    }),
  );
}

/** What an image says about how its process wants to be stopped. */
const STOP_SIGNAL_LABEL = 'io.containerd.image.config.stop-signal';

/** SIGKILL and SIGTERM. */
const ENDING: ReadonlySet<number> = new Set([9, 15]);

async function kill(
  id: string,
  flags: { signal?: string; execId?: string; all?: boolean },
  command: Command,
): Promise<void> {
  const { all = false, execId } = flags;
  if (all && execId !== undefined) throw new Failure('give either --exec-id or --all');
  await withClient(command, async (session) => {
    const { sdk, call } = session;
    if (flags.signal !== undefined) sdk.signalNumber(flags.signal);
    const [container, task] = await containerTask(session, id);
    const signal = flags.signal ?? container.labels[STOP_SIGNAL_LABEL] ?? 'SIGTERM';
    const target = execId === undefined ? task : await task.process(execId, call);
    // Any other signal is a message to it.
    const isStop = flags.signal === undefined || ENDING.has(sdk.signalNumber(signal));
    if (target === task && isStop) await container.stoppedOnPurpose(true, call);
    await target.kill(signal, { ...call, all });
  });
}

async function processes(id: string, flags: FormatOptions, command: Command): Promise<void> {
  await withClient(command, async (session) => {
    const [, task] = await containerTask(session, id);
    const all = await task.pids(session.call);
    const infoOf = ({ execId }: TaskProcess) =>
      // How Go prints the message; scripts that were written for ctr look for the id in it.
      execId === undefined ? '-' : `&ProcessDetails{ExecID:${execId},XXX_unrecognized:[],}`;
    await printListing(
      {
        header: ['PID', 'INFO'],
        rows: all.map((each) => [
          String(each.pid),
          flags.format === 'table' ? (each.execId ?? '') : infoOf(each),
        ]),
        json: all,
        spacing: [1, 4],
        filled: 'none',
      },
      flags,
    );
  });
}

async function remove(
  ids: string[],
  { force = false, execId }: { force?: boolean; execId?: string },
  command: Command,
): Promise<void> {
  if (execId !== undefined && ids.length > 1) throw new Failure('--exec-id needs exactly one container');
  await withClient(command, async (session) => {
    const { call, globals } = session;
    if (execId !== undefined) {
      const [, task] = await containerTask(session, ids[0]!);
      const target = await task.process(execId, call);
      process.exitCode = (await target.delete({ ...call, force })).code;
      return;
    }
    for (const id of ids) {
      try {
        const [container, task] = await containerTask(session, id);
        if (force) await container.stoppedOnPurpose(true, call);
        const { code } = await task.delete({ ...call, force });
        if (code !== 0 && !force) console.error(`moor: task ${id} exited with status ${code}`);
      } catch (error) {
        for (const line of explain(error, globals)) console.error(line);
        process.exitCode = FAILURE_STATUS;
      }
    }
  });
}

interface CheckpointFlags {
  readonly exit?: boolean;
  readonly imagePath: string;
  readonly workPath?: string;
}

async function checkpoint(id: string, flags: CheckpointFlags, command: Command): Promise<void> {
  const { exit, imagePath, workPath } = flags;
  await withTask(async (task, { call }) => {
    const paused = (await task.status(call)) === 'PAUSED';
    // Nothing may change while it is written; CRIU thaws what it stops.
    if (!paused) await task.pause(call);
    try {
      await task.checkpoint({ exit, imagePath, workPath }, call);
    } finally {
      if (!paused && exit !== true) await task.resume(call);
    }
  })(id, flags, command);
}
