/**
 * The system calls that a container may make when filtering is asked for without a profile: those of containerd 1.6
 * (contrib/seccomp), which are docker's. Anything else fails with EPERM.
 */
import { release } from 'node:os';

/** A filter as the OCI runtime specification has it (config-linux.md#seccomp). */
export interface SeccompProfile {
  readonly defaultAction: string;
  readonly architectures?: readonly string[];
  readonly syscalls: readonly SyscallRule[];
}

export interface SyscallRule {
  readonly names: readonly string[];
  readonly action: string;
  readonly errnoRet?: number;
  readonly args?: readonly {
    readonly index: number;
    readonly value: number;
    readonly valueTwo?: number;
    readonly op: string;
  }[];
}

const words = (text: string): string[] => text.trim().split(/\s+/);

const ALWAYS = words(`
  _llseek _newselect accept accept4 access adjtimex alarm bind brk capget capset chdir chmod chown chown32
  clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
  clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
  epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit
  exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchown
  fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64
  fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_time64 futex_waitv futimesat get_robust_list
  get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups
  getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32
  getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getuid32
  getxattr inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents
  io_pgetevents io_pgetevents_time64 io_setup io_submit io_uring_enter io_uring_register io_uring_setup ioctl
  ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32
  lgetxattr link linkat listen listxattr llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise membarrier
  memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect
  mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64
  mq_unlink mremap msgctl msgget msgrcv msgsnd msync munlock munlockall munmap nanosleep newfstatat open openat
  openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64
  prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read
  readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr
  rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
  rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max
  sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
  sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield
  seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto
  set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32
  setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid
  setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr shmat shmctl shmdt shmget
  shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socket socketcall socketpair splice stat stat64
  statfs statfs64 statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create
  timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create
  timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit
  umask uname unlink unlinkat utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write
  writev
`);

/** What personality(2) may be asked for: Linux's own, its 32-bit one, each also as an older kernel, and the present one. */
const PERSONALITIES = [0x0, 0x0008, 0x20000, 0x20008, 0xffffffff];

interface Machine {
  /** The architectures whose calls the kernel takes from programs on it. */
  readonly architectures: readonly string[];
  readonly calls: readonly string[];
  /** Which argument of clone(2) has the flags. */
  readonly cloneFlags?: number;
}

/** By Node's name of the processor. */
const MACHINES: { readonly [arch: string]: Machine } = {
  x64: {
    architectures: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32'],
    calls: ['arch_prctl', 'modify_ldt'],
  },
  arm64: {
    architectures: ['SCMP_ARCH_ARM', 'SCMP_ARCH_AARCH64'],
    calls: words('arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls'),
  },
  ppc64: { architectures: [], calls: ['sync_file_range2', 'swapcontext'] },
  riscv64: { architectures: ['SCMP_ARCH_RISCV64'], calls: ['riscv_flush_icache'] },
  s390x: {
    architectures: ['SCMP_ARCH_S390', 'SCMP_ARCH_S390X'],
    calls: words('s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr'),
    cloneFlags: 1,
  },
};

const ADMIN = 'CAP_SYS_ADMIN';

/** Calls that only make sense, and do harm, with a capability. */
const BY_CAPABILITY: { readonly [capability: string]: readonly string[] } = {
  CAP_DAC_READ_SEARCH: ['open_by_handle_at'],
  [ADMIN]: words(`
    bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount
    name_to_handle_at open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2
    unshare
  `),
  CAP_SYS_BOOT: ['reboot'],
  CAP_SYS_CHROOT: ['chroot'],
  CAP_SYS_MODULE: ['delete_module', 'init_module', 'finit_module'],
  CAP_SYS_PACCT: ['acct'],
  CAP_SYS_PTRACE: words('kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace'),
  CAP_SYS_RAWIO: ['iopl', 'ioperm'],
  CAP_SYS_TIME: ['settimeofday', 'stime', 'clock_settime', 'clock_settime64'],
  CAP_SYS_TTY_CONFIG: ['vhangup'],
  CAP_SYS_NICE: ['get_mempolicy', 'mbind', 'set_mempolicy'],
  CAP_SYSLOG: ['syslog'],
  CAP_BPF: ['bpf'],
  CAP_PERFMON: ['perf_event_open'],
};

/** CLONE_NEWNS, -NEWCGROUP, -NEWUTS, -NEWIPC, -NEWUSER, -NEWPID and -NEWNET (linux/sched.h). */
const NEW_NAMESPACES = 0x7e020000;

const ENOSYS = 38;

const allow = (names: readonly string[]): SyscallRule => ({ names, action: 'SCMP_ACT_ALLOW' });

/**
 * The default filter for a process with these capabilities.
 *
 * @param capabilities of its bounding set
 */
export function defaultSeccompProfile(
  capabilities: readonly string[],
  arch: string = process.arch,
  kernel: string = release(),
): SeccompProfile {
  const { architectures, calls, cloneFlags = 0 } = MACHINES[arch] ?? { architectures: [], calls: [] };
  const syscalls = [allow(ALWAYS)];
  for (const value of PERSONALITIES) {
    syscalls.push({ ...allow(['personality']), args: [{ index: 0, value, op: 'SCMP_CMP_EQ' }] });
  }
  // Before Linux 4.8 a filter could be escaped with ptrace(2) (seccomp(2)).
  if (isAtLeast(kernel, 4, 8)) syscalls.push(allow(['ptrace']));
  if (calls.length > 0) syscalls.push(allow(calls));
  for (const capability of capabilities) {
    const names = BY_CAPABILITY[capability];
    if (names !== undefined) syscalls.push(allow(names));
  }
  if (!capabilities.includes(ADMIN)) {
    // Threads and processes may be made, namespaces not: none of the flags may be set.
    const noNamespace = { index: cloneFlags, value: NEW_NAMESPACES, valueTwo: 0, op: 'SCMP_CMP_MASKED_EQ' };
    syscalls.push({ ...allow(['clone']), args: [noNamespace] });
    // Its flags are in memory, where no filter looks. With ENOSYS, C libraries fall back to clone(2).
    syscalls.push({ names: ['clone3'], action: 'SCMP_ACT_ERRNO', errnoRet: ENOSYS });
  }
  return { defaultAction: 'SCMP_ACT_ERRNO', architectures, syscalls };
}

function isAtLeast(kernel: string, major: number, minor: number): boolean {
  const [, first = '0', second = '0'] = /^(\d+)\.(\d+)/.exec(kernel) ?? [];
  return Number(first) > major || (Number(first) === major && Number(second) >= minor);
}
