import { addon } from './addon.ts';

/**
 * Copies an open file into memory and seals it there: from now on nobody can write to it, make it longer or shorter, or lift the seals
 * (memfd_create(2), F_ADD_SEALS of fcntl(2)). It can be executed. The memory is given back with its last descriptor and its last process.
 *
 * @param name what /proc shows of it
 * @returns a descriptor (close-on-exec)
 * @throws EIO when the file becomes shorter meanwhile; ENOMEM, EMFILE; EACCES where memory must not be executed (vm.memfd_noexec of
 *         sysctl)
 */
export function sealedCopy(fd: number, name: string): number {
  return addon().sealedCopy(fd, name);
}
