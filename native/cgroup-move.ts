import { addon } from './addon.ts';

/**
 * Tells the kernel that a process will be moved to another cgroup soon. Returns at once, and does nothing that anybody could see.
 *
 * A move takes a lock that all forks and exits of the machine share (cgroup_threadgroup_rwsem). The first one for a while has to wait until
 * each processor has passed through a quiet state, 8 to 15 ms on an idle machine; those that follow closely find that done
 * (kernel/rcu/sync.c). So a thread of its own makes a move that changes nothing, as the process is over already: a child of this one
 * that did nothing but end. While one is under way, others are left out.
 *
 * @param procs a file cgroup.procs; whether it is there and can be written to does not matter
 */
export function announceMove(procs: string): void {
  addon().announceMove(procs);
}
