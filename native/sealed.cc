// A copy of a file in memory that nobody can change any more, its maker included.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "call.h"

namespace moor {
namespace {

// Kernel 6.3 and later; older ones have no memory that may not be executed and refuse the flag with EINVAL.
constexpr unsigned kExecutable = 0x10;
constexpr int kSeals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;

int create(const std::string& name) {
  constexpr unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  const int fd = memfd_create(name.c_str(), flags | kExecutable);
  return fd < 0 && errno == EINVAL ? memfd_create(name.c_str(), flags) : fd;
}

// Null, or the name of the call that failed.
const char* fill(int from, int to) {
  struct stat status = {};
  if (fstat(from, &status) < 0) return "fstat";
  off_t offset = 0;
  while (offset < status.st_size) {
    const ssize_t count = sendfile(to, from, &offset, static_cast<size_t>(status.st_size - offset));
    if (count > 0) continue;
    // It has become shorter: what there is of it is no copy of anything.
    if (count == 0) errno = EIO;
    return "sendfile";
  }
  return fcntl(to, F_ADD_SEALS, kSeals) < 0 ? "fcntl" : nullptr;
}

napi_value sealed_copy(Call& call) {
  const int from = call.integer(0);
  const std::string name = call.text(1);
  if (call.rejected()) return nullptr;
  const int to = create(name);
  if (to < 0) return call.fail("memfd_create", name);
  const char* const failed = fill(from, to);
  if (failed == nullptr) return call.number(to);
  const int number = errno;
  close(to);
  return call.fail_with(number, failed, name);
}

}  // namespace

void define_sealed(napi_env env, napi_value exports) { define<sealed_copy>(env, exports, "sealedCopy"); }

}  // namespace moor
