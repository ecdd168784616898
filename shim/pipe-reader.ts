import { constants, lstatSync, readdirSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { getPid } from '../native/native.ts';

/**
 * Whether another process than this one has a pipe open for reading. The kernel does not tell, and to close this process's own
 * end and see whether the pipe can still be written would, in that moment, end whoever writes with SIGPIPE. So all
 * processes' descriptors are looked at, which takes some milliseconds (proc_pid_fd(5)).
 *
 * @param fd an end of the pipe
 */
export function isReadElsewhere(fd: number): boolean {
  const pipe = readlinkSync(`/proc/self/fd/${fd}`);
  const own = String(getPid());
  return readdirSync('/proc').some((pid) => /^\d+$/.test(pid) && pid !== own && reads(pid, pipe));
}

function reads(pid: string, pipe: string): boolean {
  const folder = join('/proc', pid, 'fd');
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch {
    // It has ended, or is a thread of the kernel.
    return false;
  }
  return names.some((name) => {
    try {
      const path = join(folder, name);
      // The link's mode says how the file is open.
      return readlinkSync(path) === pipe && (lstatSync(path).mode & constants.S_IRUSR) !== 0;
    } catch {
      return false;
    }
  });
}
