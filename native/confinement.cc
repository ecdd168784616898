// What a process may still do and see: its root, its capabilities. And the one call that makes its work durable.
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "call.h"

namespace moor {
namespace {

napi_value change_root(Call& call) {
  const std::string path = call.text(0);
  if (call.rejected()) return nullptr;
  if (chroot(path.c_str()) < 0) return call.fail("chroot", path);
  return nullptr;
}

// Of the calling thread: capabilities belong to threads (capabilities(7)).
napi_value keep_capabilities(Call& call) {
  const int64_t low = call.wide(0);
  const int64_t high = call.wide(1);
  if (call.rejected()) return nullptr;
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct held[2] = {};
  if (syscall(SYS_capget, &header, held) < 0) return call.fail("capget");
  const uint32_t wanted[2] = {static_cast<uint32_t>(low), static_cast<uint32_t>(high)};
  for (int half = 0; half < 2; half++) {
    held[half].permitted &= wanted[half];
    held[half].effective = held[half].permitted;
    held[half].inheritable = 0;
  }
  if (prctl(PR_SET_NO_NEW_PRIVS, 1UL, 0UL, 0UL, 0UL) < 0) return call.fail("prctl");
  if (syscall(SYS_capset, &header, held) < 0) return call.fail("capset");
  return nullptr;
}

napi_value sync_filesystem(Call& call) {
  const std::string path = call.text(0);
  if (call.rejected()) return nullptr;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return call.fail("open", path);
  const bool synced = syncfs(fd) == 0;
  if (!synced) {
    const napi_value failure = call.fail("syncfs", path);
    close(fd);
    return failure;
  }
  close(fd);
  return nullptr;
}

}  // namespace

void define_confinement(napi_env env, napi_value exports) {
  define<change_root>(env, exports, "chroot");
  define<keep_capabilities>(env, exports, "keepCapabilities");
  define<sync_filesystem>(env, exports, "syncFilesystem");
}

}  // namespace moor
