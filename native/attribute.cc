// Files as archives know them: status with nanoseconds, owner, mode, times, extended attributes, device nodes. Paths are
// strings of bytes, as names in archives need not be UTF-8. Nothing here follows a symbolic link at the end of a path.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "call.h"

namespace moor {
namespace {

// The places in the array of attributes, as native/attribute.ts fills it.
enum Attribute { kMode, kUid, kGid, kAtime, kAtimeNanos, kMtime, kMtimeNanos, kAttributes };
// The places in the array of a status, as native/attribute.ts reads it.
enum Status {
  kStatusMode,
  kStatusUid,
  kStatusGid,
  kSize,
  kStatusAtime,
  kStatusAtimeNanos,
  kStatusMtime,
  kStatusMtimeNanos,
  kLinks,
  kInodeHigh,
  kInodeLow,
  kDevice,
  kMajor,
  kMinor,
  kStatuses
};

napi_value status_of(Call& call) {
  const std::string path = call.bytes(0);
  const Span<double> out = call.numbers(1);
  if (call.rejected()) return nullptr;
  if (out.size < kStatuses) return call.fail_with(EINVAL, "lstat", path);
  struct stat status = {};
  if (lstat(path.c_str(), &status) < 0) {
    if (errno == ENOENT || errno == ENOTDIR) return call.boolean(false);
    return call.fail("lstat", path);
  }
  out.data[kStatusMode] = status.st_mode;
  out.data[kStatusUid] = status.st_uid;
  out.data[kStatusGid] = status.st_gid;
  out.data[kSize] = static_cast<double>(status.st_size);
  out.data[kStatusAtime] = static_cast<double>(status.st_atim.tv_sec);
  out.data[kStatusAtimeNanos] = static_cast<double>(status.st_atim.tv_nsec);
  out.data[kStatusMtime] = static_cast<double>(status.st_mtim.tv_sec);
  out.data[kStatusMtimeNanos] = static_cast<double>(status.st_mtim.tv_nsec);
  out.data[kLinks] = static_cast<double>(status.st_nlink);
  // In two halves: overlayfs puts the layer's number into the highest bits, which a double would lose.
  out.data[kInodeHigh] = static_cast<double>(status.st_ino >> 32);
  out.data[kInodeLow] = static_cast<double>(status.st_ino & 0xffffffff);
  out.data[kDevice] = static_cast<double>(status.st_dev);
  out.data[kMajor] = major(status.st_rdev);
  out.data[kMinor] = minor(status.st_rdev);
  return call.boolean(true);
}

timespec time_of(const double* pair) {
  timespec time = {};
  time.tv_sec = static_cast<time_t>(pair[0]);
  time.tv_nsec = static_cast<long>(pair[1]);
  return time;
}

napi_value set_attributes(Call& call) {
  const std::string path = call.bytes(0);
  const Span<double> in = call.numbers(1);
  if (call.rejected()) return nullptr;
  if (in.size < kAttributes) return call.fail_with(EINVAL, "lchown", path);
  if (lchown(path.c_str(), static_cast<uid_t>(in.data[kUid]), static_cast<gid_t>(in.data[kGid])) < 0) {
    return call.fail("lchown", path);
  }
  const mode_t mode = static_cast<mode_t>(in.data[kMode]);
  // After the owner, as changing that clears setuid and setgid (chown(2)). A link has no mode of its own.
  if (!S_ISLNK(mode) && chmod(path.c_str(), mode & 07777) < 0) return call.fail("chmod", path);
  const timespec times[2] = {time_of(in.data + kAtime), time_of(in.data + kMtime)};
  if (utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW) < 0) return call.fail("utimensat", path);
  return nullptr;
}

// On failure, errno is that of the failed call and `*syscall` its name.
bool write_and_stamp(int fd, const Span<uint8_t>& data, const double* in, const char** syscall) {
  size_t written = 0;
  while (written < data.size) {
    *syscall = "write";
    const ssize_t count = write(fd, data.data + written, data.size - written);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return false;
    written += static_cast<size_t>(count);
  }
  *syscall = "fchown";
  if (fchown(fd, static_cast<uid_t>(in[kUid]), static_cast<gid_t>(in[kGid])) < 0) return false;
  *syscall = "fchmod";
  if (fchmod(fd, static_cast<mode_t>(in[kMode]) & 07777) < 0) return false;
  *syscall = "futimens";
  const timespec times[2] = {time_of(in + kAtime), time_of(in + kMtime)};
  return futimens(fd, times) == 0;
}

napi_value write_file(Call& call) {
  const std::string path = call.bytes(0);
  const Span<uint8_t> data = call.octets(1);
  const Span<double> in = call.numbers(2);
  if (call.rejected()) return nullptr;
  if (in.size < kAttributes) return call.fail_with(EINVAL, "open", path);
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0) return call.fail("open", path);
  const char* syscall = "close";
  const bool done = write_and_stamp(fd, data, in.data, &syscall);
  const int number = errno;
  // Quotas and network filesystems report only here that data could not be stored (close(2)).
  const bool closed = close(fd) == 0;
  if (!done) return call.fail_with(number, syscall, path);
  if (!closed) return call.fail("close", path);
  return nullptr;
}

napi_value make_node(Call& call) {
  const std::string path = call.bytes(0);
  const int mode = call.integer(1);
  const int64_t high = call.wide(2);
  const int64_t low = call.wide(3);
  if (call.rejected()) return nullptr;
  if (mknod(path.c_str(), static_cast<mode_t>(mode),
            makedev(static_cast<unsigned>(high), static_cast<unsigned>(low))) < 0) {
    return call.fail("mknod", path);
  }
  return nullptr;
}

napi_value set_xattr(Call& call) {
  const std::string path = call.bytes(0);
  const std::string name = call.bytes(1);
  const Span<uint8_t> value = call.octets(2);
  if (call.rejected()) return nullptr;
  if (lsetxattr(path.c_str(), name.c_str(), value.data, value.size, 0) < 0) {
    return call.fail("lsetxattr", path + " " + name);
  }
  return nullptr;
}

napi_value buffer_of(Call& call, const char* data, size_t size) {
  napi_value result = nullptr;
  napi_create_buffer_copy(call.env(), size, data, nullptr, &result);
  return result;
}

// XATTR_SIZE_MAX and XATTR_LIST_MAX of linux/limits.h: a buffer of that size never has to be tried again larger.
constexpr size_t kMostXattr = 65536;

napi_value get_xattr(Call& call) {
  const std::string path = call.bytes(0);
  const std::string name = call.bytes(1);
  if (call.rejected()) return nullptr;
  char value[kMostXattr];
  const ssize_t size = lgetxattr(path.c_str(), name.c_str(), value, sizeof value);
  if (size >= 0) return buffer_of(call, value, static_cast<size_t>(size));
  if (errno == ENODATA || errno == ENOTSUP) return nullptr;
  return call.fail("lgetxattr", path + " " + name);
}

napi_value list_xattr(Call& call) {
  const std::string path = call.bytes(0);
  if (call.rejected()) return nullptr;
  char names[kMostXattr];
  const ssize_t size = llistxattr(path.c_str(), names, sizeof names);
  if (size >= 0) return buffer_of(call, names, static_cast<size_t>(size));
  if (errno == ENOTSUP) return buffer_of(call, names, 0);
  return call.fail("llistxattr", path);
}

}  // namespace

void define_attribute(napi_env env, napi_value exports) {
  define<status_of>(env, exports, "lstat");
  define<set_attributes>(env, exports, "setAttributes");
  define<write_file>(env, exports, "writeFile");
  define<make_node>(env, exports, "mknod");
  define<set_xattr>(env, exports, "setXattr");
  define<get_xattr>(env, exports, "getXattr");
  define<list_xattr>(env, exports, "listXattr");
}

}  // namespace moor
