// Mounts, FIFOs and namespaces.
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>

#include "call.h"

namespace moor {
namespace {

napi_value mount_at(Call& call) {
  const std::string source = call.text(0);
  const std::string target = call.text(1);
  const std::string type = call.text(2);
  const int64_t flags = call.wide(3);
  const std::string data = call.text(4);
  if (call.rejected()) return nullptr;
  // The kernel copies one page of options and silently drops the rest (mount(2)): an overlay with many layers would come
  // up with some of them missing.
  if (data.size() >= static_cast<size_t>(sysconf(_SC_PAGESIZE))) return call.fail_with(E2BIG, "mount", target);
  if (mount(source.c_str(), target.c_str(), type.c_str(), static_cast<unsigned long>(flags), data.c_str()) < 0) {
    return call.fail("mount", target);
  }
  return nullptr;
}

napi_value unmount_at(Call& call) {
  const std::string target = call.text(0);
  const int flags = call.integer(1);
  if (call.rejected()) return nullptr;
  if (umount2(target.c_str(), flags) < 0) return call.fail("umount2", target);
  return nullptr;
}

// What is mounted aside, and what became of it.
struct Aside {
  std::string source, type, data, folder;
  unsigned long flags = 0;
  int fd = -1;
  int number = 0;
  const char* syscall = "";
  bool failed(const char* name) {
    number = errno;
    syscall = name;
    return false;
  }
};

bool open_aside(Aside& aside) {
  // A thread that has left the others' namespace has also left their root and working directory: they notice nothing.
  if (unshare(CLONE_NEWNS) < 0) return aside.failed("unshare");
  if (mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) < 0) return aside.failed("mount");
  if (!aside.folder.empty() && chdir(aside.folder.c_str()) < 0) return aside.failed("chdir");
  // Any directory that every host has does for a place: only this thread sees what is on it.
  const char* place = "/proc";
  if (mount(aside.source.c_str(), place, aside.type.c_str(), aside.flags, aside.data.c_str()) < 0) {
    return aside.failed("mount");
  }
  aside.fd = open(place, O_PATH | O_DIRECTORY | O_CLOEXEC);
  return aside.fd >= 0 || aside.failed("open");
}

void* run_aside(void* data) {
  open_aside(*static_cast<Aside*>(data));
  return nullptr;
}

napi_value mount_aside(Call& call) {
  Aside aside;
  aside.source = call.text(0);
  aside.type = call.text(1);
  aside.flags = static_cast<unsigned long>(call.wide(2));
  aside.data = call.text(3);
  aside.folder = call.text(4);
  if (call.rejected()) return nullptr;
  if (aside.data.size() >= static_cast<size_t>(sysconf(_SC_PAGESIZE))) {
    return call.fail_with(E2BIG, "mount", aside.source);
  }
  pthread_t thread;
  const int refused = pthread_create(&thread, nullptr, run_aside, &aside);
  if (refused != 0) return call.fail_with(refused, "pthread_create");
  pthread_join(thread, nullptr);
  if (aside.fd < 0) return call.fail_with(aside.number, aside.syscall, aside.source);
  return call.number(aside.fd);
}

napi_value make_fifo(Call& call) {
  const std::string path = call.text(0);
  const int mode = call.integer(1);
  if (call.rejected()) return nullptr;
  if (mkfifo(path.c_str(), static_cast<mode_t>(mode)) < 0) return call.fail("mkfifo", path);
  return nullptr;
}

napi_value leave_namespaces(Call& call) {
  const int64_t flags = call.wide(0);
  if (call.rejected()) return nullptr;
  if (unshare(static_cast<int>(flags)) < 0) return call.fail("unshare");
  return nullptr;
}

napi_value join_namespace(Call& call) {
  const int fd = call.integer(0);
  const int64_t flags = call.wide(1);
  if (call.rejected()) return nullptr;
  if (setns(fd, static_cast<int>(flags)) < 0) return call.fail("setns");
  return nullptr;
}

napi_value filesystem_type(Call& call) {
  const std::string path = call.text(0);
  if (call.rejected()) return nullptr;
  struct statfs status = {};
  if (statfs(path.c_str(), &status) < 0) return call.fail("statfs", path);
  return call.number(static_cast<double>(static_cast<uint32_t>(status.f_type)));
}

}  // namespace

void define_mount(napi_env env, napi_value exports) {
  define<mount_at>(env, exports, "mount");
  define<unmount_at>(env, exports, "unmount");
  define<mount_aside>(env, exports, "mountAside");
  define<make_fifo>(env, exports, "mkfifo");
  define<leave_namespaces>(env, exports, "unshare");
  define<join_namespace>(env, exports, "setns");
  define<filesystem_type>(env, exports, "statfsType");
}

}  // namespace moor
