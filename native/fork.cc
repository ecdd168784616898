// Forking a running Node process. fork.ts says under which conditions; this is the kernel's and libuv's side of it.
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <uv.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "call.h"

namespace moor {
namespace {

bool read_all(const char* path, std::string& text) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  char piece[16384];
  ssize_t count;
  while ((count = TEMP_FAILURE_RETRY(read(fd, piece, sizeof piece))) > 0) {
    text.append(piece, static_cast<size_t>(count));
  }
  const int number = errno;
  close(fd);
  errno = number;
  return count == 0;
}

// V8 marks its heap and its code as not to be copied by fork (MADV_DONTFORK; `dc` among the VmFlags in /proc/self/smaps), so
// a child would fault on the first object it touches. The heap grows and moves, so this is needed before every fork.
//
// It asks for the copy of every mapping rather than look up which have the flag: for those without, madvise does nothing,
// and smaps makes the kernel walk all page tables, which tripled the time of a fork (2.5 ms against 0.85 ms). Mappings of
// devices and the kernel's own ([vvar]) refuse with EINVAL; they are not V8's.
bool let_fork_copy_all() {
  std::string maps;
  if (!read_all("/proc/self/maps", maps)) return false;
  for (size_t line = 0; line < maps.size();) {
    char* rest = nullptr;
    const unsigned long start = strtoul(maps.c_str() + line, &rest, 16);
    const unsigned long end = strtoul(rest + 1, nullptr, 16);
    // [vsyscall] of x86-64 is in the kernel's half of the addresses and no mapping of this process at all.
    if (static_cast<long>(start) < 0) break;
    if (madvise(reinterpret_cast<void*>(start), end - start, MADV_DOFORK) < 0 && errno != EINVAL) return false;
    const size_t newline = maps.find('\n', line);
    if (newline == std::string::npos) break;
    line = newline + 1;
  }
  return true;
}

struct Range {
  unsigned long start;
  unsigned long end;
};

// The mappings that V8 does not want copied, as they were before the first fork.
std::vector<Range> find_uncopied() {
  std::vector<Range> found;
  std::string maps;
  if (!read_all("/proc/self/smaps", maps)) return found;
  Range range = {0, 0};
  for (size_t line = 0; line < maps.size();) {
    size_t newline = maps.find('\n', line);
    if (newline == std::string::npos) newline = maps.size();
    const std::string text = maps.substr(line, newline - line);
    unsigned long start, end;
    // Of all lines in smaps (proc(5)) only a mapping's first has a range.
    if (sscanf(text.c_str(), "%lx-%lx ", &start, &end) == 2) range = {start, end};
    if (text.compare(0, 8, "VmFlags:") == 0 && text.find(" dc") != std::string::npos) found.push_back(range);
    line = newline + 1;
  }
  return found;
}

// In the child the heap is not to be copied again, for each process that it spawns: that would cost it a walk of the page
// tables and, since all is write-protected then, a fault for each page that it writes to afterwards.
void leave_uncopied(const std::vector<Range>& ranges) {
  for (const Range& range : ranges) {
    madvise(reinterpret_cast<void*>(range.start), range.end - range.start, MADV_DONTFORK);
  }
}

napi_value fork_process(Call& call) {
  static const std::vector<Range> uncopied = find_uncopied();
  // In a worker, the child would be left with the worker's thread and without the main one.
  if (syscall(SYS_gettid) != getpid()) return call.fail_with(EINVAL, "fork");
  uv_loop_t* loop;
  if (napi_get_uv_event_loop(call.env(), &loop) != napi_ok) return call.fail_with(EINVAL, "fork");
  // The thread pool's threads do not exist in the child, so a file operation that one of them is at would never end there; a
  // write under way on a socket would be done by both.
  if (loop->active_reqs.count != 0) return call.fail_with(EBUSY, "fork");
  if (!let_fork_copy_all()) return call.fail("madvise");

  // libuv's signal handler writes to a pipe that parent and child share until uv_loop_fork: a signal that arrives in the
  // child before that would be handled by the parent.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t pid = fork();
  const int number = errno;
  if (pid == 0) {
    leave_uncopied(uncopied);
    const int refused = uv_loop_fork(loop);
    if (refused < 0) {
      // The loop is in no state to run anything, JavaScript's error handling included.
      dprintf(STDERR_FILENO, "uv_loop_fork: %s\n", uv_strerror(refused));
      _exit(1);
    }
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) return call.fail_with(number, "fork");
  return call.number(pid);
}

napi_value exit_now(Call& call) {
  const int code = call.integer(0);
  if (call.rejected()) return nullptr;
  _exit(code);
}

}  // namespace

void define_fork(napi_env env, napi_value exports) {
  define<fork_process>(env, exports, "fork");
  define<exit_now>(env, exports, "exitNow");
}

}  // namespace moor
