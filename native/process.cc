// Processes: subreaper, exit status of one child, pidfds, sessions, names.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "call.h"

namespace moor {
namespace {

napi_value set_child_subreaper(Call& call) {
  const bool on = call.flag(0);
  if (call.rejected()) return nullptr;
  if (prctl(PR_SET_CHILD_SUBREAPER, on ? 1UL : 0UL, 0UL, 0UL, 0UL) < 0) return call.fail("prctl");
  return nullptr;
}

// Waits for one pid, never for "any child": libuv waits for its own children the same way, so neither steals from the
// other.
napi_value wait_pid(Call& call) {
  const pid_t pid = call.integer(0);
  if (call.rejected()) return nullptr;
  siginfo_t info = {};
  if (waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG) < 0) {
    return call.fail("waitid", std::to_string(pid));
  }
  // WNOHANG with a child still running succeeds and leaves si_pid at zero (waitid(2)).
  if (info.si_pid == 0) return nullptr;
  if (info.si_code == CLD_EXITED) return call.pair("code", info.si_status, "signal", 0);
  return call.pair("code", 0, "signal", info.si_status);
}

// Through syscall(2): glibc 2.36 is the first to have wrappers.
napi_value pidfd_open(Call& call) {
  const pid_t pid = call.integer(0);
  if (call.rejected()) return nullptr;
  const long fd = syscall(SYS_pidfd_open, pid, 0);
  if (fd < 0) return call.fail("pidfd_open", std::to_string(pid));
  return call.number(static_cast<double>(fd));
}

napi_value pidfd_send_signal(Call& call) {
  const int fd = call.integer(0);
  const int signal = call.integer(1);
  if (call.rejected()) return nullptr;
  if (syscall(SYS_pidfd_send_signal, fd, signal, nullptr, 0) < 0) return call.fail("pidfd_send_signal");
  return nullptr;
}

napi_value set_sid(Call& call) {
  if (setsid() < 0) return call.fail("setsid");
  return nullptr;
}

napi_value get_pid(Call& call) { return call.number(getpid()); }

napi_value prctl_name(Call& call) {
  const std::string name = call.text(0);
  if (call.rejected()) return nullptr;
  if (prctl(PR_SET_NAME, name.c_str(), 0UL, 0UL, 0UL) < 0) return call.fail("prctl");
  return nullptr;
}

}  // namespace

void define_process(napi_env env, napi_value exports) {
  define<set_child_subreaper>(env, exports, "setChildSubreaper");
  define<wait_pid>(env, exports, "waitPid");
  define<pidfd_open>(env, exports, "pidfdOpen");
  define<pidfd_send_signal>(env, exports, "pidfdSendSignal");
  define<set_sid>(env, exports, "setSid");
  define<get_pid>(env, exports, "getPid");
  define<prctl_name>(env, exports, "prctlName");
}

}  // namespace moor
