// Descriptors: flags, pipes, splice, locks.
#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/ioctl.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "call.h"

namespace moor {
namespace {

napi_value set_flag(Call& call, int get, int set, int flag) {
  const int fd = call.integer(0);
  const bool on = call.flag(1);
  if (call.rejected()) return nullptr;
  const int flags = fcntl(fd, get);
  if (flags < 0) return call.fail("fcntl");
  const int wanted = on ? flags | flag : flags & ~flag;
  if (wanted != flags && fcntl(fd, set, wanted) < 0) return call.fail("fcntl");
  return nullptr;
}

napi_value set_cloexec(Call& call) { return set_flag(call, F_GETFD, F_SETFD, FD_CLOEXEC); }

napi_value set_nonblock(Call& call) { return set_flag(call, F_GETFL, F_SETFL, O_NONBLOCK); }

napi_value make_pipe(Call& call) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) return call.fail("pipe2");
  return call.pair("read", ends[0], "write", ends[1]);
}

napi_value set_pipe_size(Call& call) {
  const int fd = call.integer(0);
  const int bytes = call.integer(1);
  if (call.rejected()) return nullptr;
  const int size = fcntl(fd, F_SETPIPE_SZ, bytes);
  if (size < 0) return call.fail("fcntl");
  return call.number(size);
}

napi_value unread_bytes(Call& call) {
  const int fd = call.integer(0);
  if (call.rejected()) return nullptr;
  int bytes = 0;
  if (ioctl(fd, FIONREAD, &bytes) < 0) return call.fail("ioctl");
  return call.number(bytes);
}

napi_value splice_some(Call& call) {
  const int from = call.integer(0);
  const int to = call.integer(1);
  const int64_t length = call.wide(2);
  if (call.rejected()) return nullptr;
  if (length < 0) return call.fail_with(EINVAL, "splice");
  const ssize_t moved = TEMP_FAILURE_RETRY(
      splice(from, nullptr, to, nullptr, static_cast<size_t>(length), SPLICE_F_MOVE | SPLICE_F_NONBLOCK));
  if (moved >= 0) return call.number(static_cast<double>(moved));
  if (errno == EAGAIN) return nullptr;
  return call.fail("splice");
}

napi_value lock_file(Call& call) {
  const int fd = call.integer(0);
  const bool exclusive = call.flag(1);
  if (call.rejected()) return nullptr;
  if (TEMP_FAILURE_RETRY(flock(fd, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB)) == 0) return call.boolean(true);
  if (errno == EWOULDBLOCK) return call.boolean(false);
  return call.fail("flock");
}

napi_value allocate(Call& call) {
  const int fd = call.integer(0);
  const int64_t offset = call.wide(1);
  const int64_t length = call.wide(2);
  if (call.rejected()) return nullptr;
  if (TEMP_FAILURE_RETRY(fallocate(fd, 0, offset, length)) < 0) return call.fail("fallocate");
  return nullptr;
}

napi_value make_eventfd(Call& call) {
  const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) return call.fail("eventfd");
  return call.number(fd);
}

napi_value close_from(Call& call) {
  const int first = call.integer(0);
  const bool on_exec = call.flag(1);
  if (call.rejected()) return nullptr;
  if (first < 0) return call.fail_with(EBADF, "close_range");
  const unsigned int flags = on_exec ? CLOSE_RANGE_CLOEXEC : 0;
  if (syscall(SYS_close_range, static_cast<unsigned int>(first), ~0U, flags) < 0) return call.fail("close_range");
  return nullptr;
}

}  // namespace

void define_descriptor(napi_env env, napi_value exports) {
  define<set_cloexec>(env, exports, "setCloexec");
  define<set_nonblock>(env, exports, "setNonblock");
  define<make_pipe>(env, exports, "pipe");
  define<set_pipe_size>(env, exports, "setPipeSize");
  define<unread_bytes>(env, exports, "unreadBytes");
  define<splice_some>(env, exports, "splice");
  define<lock_file>(env, exports, "flock");
  define<allocate>(env, exports, "allocate");
  define<make_eventfd>(env, exports, "eventfd");
  define<close_from>(env, exports, "closeRange");
}

}  // namespace moor
