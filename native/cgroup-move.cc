// Having the kernel get ready for processes to move between cgroups. cgroup-move.ts says why.
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <memory>
#include <string>

#include "call.h"

namespace moor {
namespace {

constexpr size_t kThreadStack = 64 << 10;
constexpr size_t kChildStack = 16 << 10;

std::atomic<bool> under_way{false};

int leave(void*) { _exit(0); }

void* move(void* data) {
  const std::unique_ptr<std::string> path(static_cast<std::string*>(data));
  alignas(16) char stack[kChildStack];
  // It has ended when clone returns, and tells nobody of its end: only who asks for such children takes it (clone(2)).
  const pid_t pid = clone(leave, stack + kChildStack, CLONE_VM | CLONE_VFORK, nullptr);
  if (pid > 0) {
    const int fd = open(path->c_str(), O_WRONLY | O_CLOEXEC);
    // What becomes of it is all the same.
    if (fd >= 0 && dprintf(fd, "%d", pid) < 0) errno = 0;
    if (fd >= 0) close(fd);
    TEMP_FAILURE_RETRY(waitpid(pid, nullptr, __WCLONE));
  }
  under_way = false;
  return nullptr;
}

napi_value announce_move(Call& call) {
  std::string path = call.text(0);
  if (call.rejected()) return nullptr;
  if (under_way.exchange(true)) return nullptr;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, kThreadStack);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  auto owned = std::make_unique<std::string>(std::move(path));
  pthread_t thread;
  if (pthread_create(&thread, &attributes, move, owned.get()) == 0) {
    owned.release();
  } else {
    under_way = false;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
  return nullptr;
}

}  // namespace

void define_cgroup_move(napi_env env, napi_value exports) { define<announce_move>(env, exports, "announceMove"); }

}  // namespace moor
