// Forking a running Node process. fork.ts says under which conditions; this is the kernel's and libuv's side of it.
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
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

// Whether this process can be forked now; what is left to do for a fork is fork_now's.
// Returns 0, or the error number.
int prepare_fork(Call& call, uv_loop_t** loop, const std::vector<Range>** uncopied) {
  static const std::vector<Range> found = find_uncopied();
  *uncopied = &found;
  // In a worker, the child would be left with the worker's thread and without the main one.
  if (syscall(SYS_gettid) != getpid()) return EINVAL;
  if (napi_get_uv_event_loop(call.env(), loop) != napi_ok) return EINVAL;
  // The thread pool's threads do not exist in the child, so a file operation that one of them is at would never end there; a
  // write under way on a socket would be done by both.
  if ((*loop)->active_reqs.count != 0) return EBUSY;
  return let_fork_copy_all() ? 0 : errno;
}

// fork(2), and what makes the child's event loop its own. A failure sets errno.
pid_t fork_now(uv_loop_t* loop, const std::vector<Range>& uncopied) {
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
  errno = number;
  return pid;
}

napi_value fork_process(Call& call) {
  uv_loop_t* loop;
  const std::vector<Range>* uncopied;
  const int unfit = prepare_fork(call, &loop, &uncopied);
  if (unfit != 0) return call.fail_with(unfit, "fork");
  const pid_t pid = fork_now(loop, *uncopied);
  if (pid < 0) return call.fail("fork");
  return call.number(pid);
}

// The first line of the buffer, which is read into until it has one. Null at the end of the stream or when its other end is
// closed, whatever has been read before: nobody waits for an answer then.
const std::string* next_line(int fd, std::string& buffer) {
  static std::string line;
  for (;;) {
    const size_t end = buffer.find('\n');
    pollfd waited = {fd, POLLIN, 0};
    if (TEMP_FAILURE_RETRY(poll(&waited, 1, end == std::string::npos ? -1 : 0)) < 0) return nullptr;
    if (waited.revents & (POLLHUP | POLLERR | POLLNVAL)) return nullptr;
    if (end != std::string::npos) {
      line = buffer.substr(0, end);
      return &line;
    }
    char piece[4096];
    const ssize_t count = TEMP_FAILURE_RETRY(read(fd, piece, sizeof piece));
    if (count == 0 || (count < 0 && errno != EAGAIN)) return nullptr;
    if (count > 0) buffer.append(piece, static_cast<size_t>(count));
  }
}

// What changes when a file is replaced, written to or removed.
std::string identity_of(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) < 0) return "";
  char text[160];
  snprintf(text, sizeof text, "%ju %ju %jd %jd.%ld %jd.%ld", static_cast<uintmax_t>(status.st_dev),
           static_cast<uintmax_t>(status.st_ino), static_cast<intmax_t>(status.st_size),
           static_cast<intmax_t>(status.st_mtim.tv_sec), status.st_mtim.tv_nsec,
           static_cast<intmax_t>(status.st_ctim.tv_sec), status.st_ctim.tv_nsec);
  return text;
}

std::vector<std::string> identities_of(const std::vector<std::string>& paths) {
  std::vector<std::string> found;
  for (const std::string& path : paths) found.push_back(identity_of(path));
  return found;
}

napi_value outcome(Call& call, const char* kind, const std::string& line = "", napi_value error = nullptr) {
  napi_value object, text;
  napi_create_object(call.env(), &object);
  napi_create_string_utf8(call.env(), kind, NAPI_AUTO_LENGTH, &text);
  napi_set_named_property(call.env(), object, "kind", text);
  napi_create_string_utf8(call.env(), line.data(), line.size(), &text);
  napi_set_named_property(call.env(), object, "line", text);
  if (error != nullptr) napi_set_named_property(call.env(), object, "error", error);
  return object;
}

// No JavaScript runs in the parent between two forks: its heap stays as it is, so that all children share the same pages for
// as long as they live, and the mappings need to be looked at once only.
napi_value fork_for_lines(Call& call) {
  static std::string buffer;
  const int fd = call.integer(0);
  const std::vector<std::string> watched = call.texts(1);
  if (call.rejected()) return nullptr;
  uv_loop_t* loop;
  const std::vector<Range>* uncopied;
  const int unfit = prepare_fork(call, &loop, &uncopied);
  if (unfit != 0) return call.fail_with(unfit, "fork");
  const std::vector<std::string> identities = identities_of(watched);
  // Children that end leave no zombie (sigaction(2), SIGCHLD); each child sets this back for children of its own.
  struct sigaction ignored = {}, before;
  ignored.sa_handler = SIG_IGN;
  sigaction(SIGCHLD, &ignored, &before);
  // Those that ended before that.
  while (waitpid(-1, nullptr, WNOHANG) > 0) continue;
  napi_value result = nullptr;
  while (result == nullptr) {
    const std::string* line = next_line(fd, buffer);
    if (line == nullptr) {
      result = outcome(call, "closed");
    } else if (identities_of(watched) != identities) {
      result = outcome(call, "changed");
    } else {
      const pid_t pid = fork_now(loop, *uncopied);
      if (pid == 0) result = outcome(call, "child", *line);
      if (pid < 0) result = outcome(call, "refused", *line, system_error(call.env(), errno, "fork"));
      buffer.erase(0, pid == 0 ? std::string::npos : line->size() + 1);
    }
  }
  sigaction(SIGCHLD, &before, nullptr);
  return result;
}

napi_value exit_now(Call& call) {
  const int code = call.integer(0);
  if (call.rejected()) return nullptr;
  _exit(code);
}

}  // namespace

void define_fork(napi_env env, napi_value exports) {
  define<fork_process>(env, exports, "fork");
  define<fork_for_lines>(env, exports, "forkForLines");
  define<exit_now>(env, exports, "exitNow");
}

}  // namespace moor
