/**
 * runc in memory. Before a container's init lets go of the host, runc must run from a file that the container cannot write to
 * (CVE-2019-5736): unless it already does, it makes one for every `create` and `exec`, by a mount or by a copy, and executes itself once
 * more (libcontainer/nsenter/cloned_binary.c). Of a file in memory with exactly the four seals it knows that it need not.
 */
import { type BigIntStats, closeSync, fstatSync, openSync, readSync, statSync, symlinkSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type Program, sealedCopy } from '../native/native.ts';
import { messageOf } from '../ttrpc/errors.ts';
import { Descriptor } from './descriptor.ts';
import type { Reaper } from './reaper.ts';

/** The only program that is known not to mind: what wraps runc may look for things beside its own path. */
const NAME = 'runc';
const ELF = Buffer.from('\x7fELF', 'latin1');
/** Set-user-ID and set-group-ID, which a copy does not have. */
const PRIVILEGED = 0o6000n;
const EXECUTABLE = 0o111n;
const PROOF_TIMEOUT_MS = 10_000;

/** How a program is started: a part of what `spawn` takes. */
type Start = Pick<Program, 'file' | 'name' | 'passing'>;

export class SealedRunc {
  readonly #identity: string;
  #fd: number | undefined;

  private constructor(identity: string, fd: number) {
    this.#identity = identity;
    this.#fd = fd;
  }

  /**
   * Copies the runc of this process's PATH, and has the copy say its version to see that it runs.
   *
   * @param reaper waits for that
   * @param folder for the link that it is started by; nothing stays there
   * @returns undefined, with `warn` called, when there is no runc, or none that can be used so
   */
  static async make(
    folder: string,
    reaper: Reaper,
    warn: (why: string) => void,
  ): Promise<SealedRunc | undefined> {
    try {
      const sealed = seal(find(NAME).path);
      const start = sealed.start(NAME, folder);
      const program = {
        ...start,
        args: ['--version'],
        environment: process.env,
        cwd: '/',
        descriptors: ['ignore', 'ignore', 'ignore'] as const,
      };
      const { exit } = await reaper.run(program, PROOF_TIMEOUT_MS);
      if (exit.status === 0 && start.passing !== undefined) return sealed;
      sealed.close();
      warn(`the copy of ${NAME} in memory does not run: exit status ${exit.status}`);
    } catch (error) {
      warn(`${NAME} is not copied into memory: ${messageOf(error)}`);
    }
    return undefined;

    function seal(path: string): SealedRunc {
      using file = new Descriptor(openSync(path, 'r'));
      const status = fstatSync(file.fd, { bigint: true });
      const magic = Buffer.alloc(ELF.length);
      readSync(file.fd, magic, 0, ELF.length, 0);
      if (!magic.equals(ELF)) throw new Error(`${path} is a script`);
      if ((status.mode & PRIVILEGED) !== 0n) throw new Error(`${path} runs as another user`);
      const fd = sealedCopy(file.fd, NAME);
      // Written to in the meantime, the copy may be of neither version; then it will not be taken for the file.
      return new SealedRunc(identityOf(status), fd);
    }
  }

  /** Whether the program that this is a copy of is still the one that is found. */
  get isCurrent(): boolean {
    return this.#fd !== undefined && isIdentical(NAME, this.#identity);
  }

  /**
   * How to start `binary`: as this copy, or as the file where that is another one by now, or cannot be started by a link in `folder`.
   */
  start(binary: string, folder: string): Start {
    if (this.#fd === undefined || basename(binary) !== NAME) return { file: binary };
    if (!isIdentical(binary, this.#identity)) {
      this.close();
      return { file: binary };
    }
    const link = join(folder, NAME);
    try {
      // Behind the three standard descriptors. By a link, as the process is named after the path that it is executed by.
      symlinkSync('/proc/self/fd/3', link);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') return { file: binary };
    }
    return { file: link, name: binary, passing: this.#fd };
  }

  /** Gives the copy up; it is a plain runc from now on. */
  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }
}

/** Where runc may be: a change of one of these files may mean another runc. */
export function runcPaths(): string[] {
  return candidates(NAME);
}

/** As execvp(3) finds a program. @throws Error when there is none */
function find(binary: string): { path: string; status: BigIntStats } {
  for (const path of candidates(binary)) {
    const status = statusOf(path);
    if (status?.isFile() === true && (status.mode & EXECUTABLE) !== 0n) return { path, status };
  }
  throw new Error(`no ${binary} in PATH`);
}

function isIdentical(binary: string, identity: string): boolean {
  try {
    return identityOf(find(binary).status) === identity;
  } catch {
    return false;
  }
}

function candidates(binary: string): string[] {
  if (binary.includes('/')) return [binary];
  return (process.env['PATH'] ?? '').split(':').map((folder) => join(folder || '.', binary));
}

function statusOf(path: string): BigIntStats | undefined {
  try {
    return statSync(path, { bigint: true, throwIfNoEntry: false });
  } catch {
    // ENOTDIR, EACCES: the search goes on.
    return undefined;
  }
}

/** What changes when a file is replaced or written to. */
function identityOf({ dev, ino, size, mtimeNs, ctimeNs }: BigIntStats): string {
  return [dev, ino, size, mtimeNs, ctimeNs].join(' ');
}
