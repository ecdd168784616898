// Pseudo-terminals (ioctl_tty(2)).
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>

#include "call.h"

namespace moor {
namespace {

napi_value set_window_size(Call& call) {
  const int fd = call.integer(0);
  winsize size = {};
  size.ws_row = call.half(1);
  size.ws_col = call.half(2);
  if (call.rejected()) return nullptr;
  if (ioctl(fd, TIOCSWINSZ, &size) < 0) return call.fail("ioctl");
  return nullptr;
}

napi_value get_window_size(Call& call) {
  const int fd = call.integer(0);
  if (call.rejected()) return nullptr;
  winsize size = {};
  if (ioctl(fd, TIOCGWINSZ, &size) < 0) return call.fail("ioctl");
  return call.pair("rows", size.ws_row, "columns", size.ws_col);
}

napi_value open_pty(Call& call) {
  const int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (master < 0) return call.fail("open", "/dev/ptmx");
  int locked = 0;
  int slave = -1;
  // TIOCGPTPEER opens the other end without a path, so it is right whatever /dev/pts this process sees.
  if (ioctl(master, TIOCSPTLCK, &locked) < 0 ||
      (slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC)) < 0) {
    const int number = errno;
    close(master);
    return call.fail_with(number, "ioctl");
  }
  return call.pair("master", master, "slave", slave);
}

}  // namespace

void define_terminal(napi_env env, napi_value exports) {
  define<set_window_size>(env, exports, "setWindowSize");
  define<get_window_size>(env, exports, "getWindowSize");
  define<open_pty>(env, exports, "openPty");
}

}  // namespace moor
