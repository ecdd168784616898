/*
 * Holds the namespaces of a pod. It does nothing, and buries the orphans of a PID namespace that it is the first process of.
 *
 * No library is linked: what it needs are four system calls, and a pod costs a few pages.
 */
#include <asm/unistd.h>
#include <linux/signal.h>

#if defined(__x86_64__)
static long call(long number, long a, long b, long c, long d) {
  long result;
  register long r10 __asm__("r10") = d;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
  return result;
}
#elif defined(__aarch64__)
static long call(long number, long a, long b, long c, long d) {
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
  return x0;
}
#else
#error "there are no system calls for this processor here"
#endif

#define NO_HANG 1 /* WNOHANG of wait4(2) */

static unsigned long bit(int signal) { return 1UL << (signal - 1); }

void _start(void) {
  /* Signals that are blocked reach the first process of a PID namespace too, unlike those that it has no handler for. */
  unsigned long heard = bit(SIGINT) | bit(SIGTERM) | bit(SIGCHLD);
  call(__NR_rt_sigprocmask, SIG_BLOCK, (long)&heard, 0, sizeof heard);
  for (;;) {
    long signal = call(__NR_rt_sigtimedwait, (long)&heard, 0, 0, sizeof heard);
    if (signal == SIGINT || signal == SIGTERM) call(__NR_exit_group, 0, 0, 0, 0);
    while (call(__NR_wait4, -1, 0, NO_HANG, 0) > 0) {
    }
  }
}
