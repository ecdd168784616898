import { closeSync, openSync, readSync, watch, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { eventfd, Poll } from '../../native/native.ts';
import { parsePairs, read } from '../../cgroup/file.ts';

/** A watch over the processes that the kernel kills for want of memory. */
export interface OomWatch {
  /** Tells now of what has happened up to now: an exit is about to be told, which comes after its cause. */
  check(): void;
  close(): void;
}

/** Watches a memory cgroup of version 1 (cgroup-v1/memory.rst, "OOM Control"). Undefined when it is gone already. */
export function watchOomV1(folder: string, onOom: () => void): OomWatch | undefined {
  const events = eventfd();
  let control: number | undefined;
  try {
    control = openSync(join(folder, 'memory.oom_control'), 'r');
    writeFileSync(join(folder, 'cgroup.event_control'), `${events} ${control}`, { flag: 'r+' });
  } catch (error) {
    closeSync(events);
    if (control !== undefined) closeSync(control);
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  const check = () => {
    // The kernel writes to it also when the cgroup is removed.
    if (taken(events) && read(join(folder, 'memory.oom_control')) !== undefined) onOom();
  };
  const poll = new Poll(events, 'readable', check);
  let isOpen = true;
  return {
    check: () => isOpen && check(),
    close: () => {
      if (!isOpen) return;
      isOpen = false;
      poll.close();
      closeSync(events);
      closeSync(control);
    },
  };
}

/** Watches a cgroup of version 2: memory.events is written to when its counts rise. Undefined without memory controller. */
export function watchOomV2(folder: string, onOom: () => void): OomWatch | undefined {
  const path = join(folder, 'memory.events');
  const kills = () => parsePairs(read(path))('oom_kill');
  if (read(path) === undefined) return undefined;
  let known = kills();
  const check = () => {
    const count = kills();
    if (count > known) onOom();
    known = count;
  };
  const watcher = watch(path, { persistent: false }, check);
  // It is removed with its cgroup.
  watcher.on('error', () => watcher.close());
  return { check, close: () => watcher.close() };
}

/** Empties an eventfd; false when it was empty. */
function taken(fd: number): boolean {
  try {
    return readSync(fd, new Uint8Array(8)) === 8;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return false;
    throw error;
  }
}
