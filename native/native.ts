/**
 * The system calls that Node lacks, typed, without policy. Each is one call to the kernel and fails with an Error that has
 * `code` (the errno's name), `errno` (negative, as in Node's own errors) and `syscall`.
 */
export * from './process.ts';
export * from './memory.ts';
export * from './descriptor.ts';
export * from './poll.ts';
export * from './socket.ts';
export * from './terminal.ts';
export * from './mount.ts';
export * from './fork.ts';
export * from './spawn.ts';
export * from './sealed.ts';
export * from './cgroup-move.ts';
export * from './attribute.ts';
export * from './confinement.ts';
export * from './mount-options.ts';
export * from './mount-aside.ts';
export * from './shift-owners.ts';
export * from './tree.ts';
export * from './subvolume.ts';
export * from './pause.ts';
