/** What the processes of a container hold, which no cgroup counts (proc_pid_fd(5), proc_pid_limits(5)). */
import { readdir, readFile, readlink } from 'node:fs/promises';

export interface ProcessUsage {
  readonly processes: bigint;
  readonly files: bigint;
  readonly sockets: bigint;
  /** How many files the first process may open; undefined when it has ended. */
  readonly openFiles: bigint | undefined;
}

/** @param first the process that the container began with */
export async function processUsage(pids: readonly number[], first: number): Promise<ProcessUsage> {
  let files = 0n;
  let sockets = 0n;
  for (const pid of pids) {
    for (const target of await openOf(pid)) {
      files += 1n;
      if (target.startsWith('socket:')) sockets += 1n;
    }
  }
  return { processes: BigInt(pids.length), files, sockets, openFiles: await openFilesOf(first) };
}

/** What the descriptors of a process are of; none of one that has ended. */
async function openOf(pid: number): Promise<string[]> {
  const directory = `/proc/${pid}/fd`;
  try {
    const names = await readdir(directory);
    return await Promise.all(names.map((name) => readlink(`${directory}/${name}`).catch(() => '')));
  } catch (error) {
    if (hasEnded(error)) return [];
    throw error;
  }
}

async function openFilesOf(pid: number): Promise<bigint | undefined> {
  try {
    const soft = /^Max open files\s+(\d+)/m.exec(await readFile(`/proc/${pid}/limits`, 'latin1'))?.[1];
    return soft === undefined ? undefined : BigInt(soft);
  } catch (error) {
    if (hasEnded(error)) return undefined;
    throw error;
  }
}

function hasEnded(error: unknown): boolean {
  return ['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '');
}
