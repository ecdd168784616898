// Copying a tree with everything the kernel keeps of it. Data is shared between both copies where the filesystem can.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <vector>

#include "tree.h"

namespace moor {
namespace {

constexpr size_t kChunk = 8 << 20;
// XATTR_SIZE_MAX and XATTR_LIST_MAX of linux/limits.h.
constexpr size_t kMostXattr = 65536;

class Copy : public Job {
 public:
  Copy(std::string from, std::string to) : from_path_(std::move(from)), to_path_(std::move(to)), buffer_(kMostXattr) {}

  bool run() override {
    const File from(open(from_path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!from.is_open()) return fail("open", from_path_);
    const File to(open(to_path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!to.is_open()) return fail("open", to_path_);
    pending_.push_back({"", false});
    while (!pending_.empty()) {
      const Visit visit = pending_.back();
      if (visit.is_filled) {
        pending_.pop_back();
      } else {
        pending_.back().is_filled = true;
      }
      const Folder source(open_within(from.fd(), visit.folder));
      const File target(open_within(to.fd(), visit.folder));
      if (!source.is_open() || !target.is_open()) return fail("openat2", visit.folder);
      // What comes into a folder changes its times, and a default ACL what comes: its attributes are the last thing.
      if (!(visit.is_filled ? finish(source, target) : fill(source, to.fd(), target.fd(), visit.folder))) return false;
    }
    return true;
  }

 private:
  struct Visit {
    std::string folder;
    bool is_filled;
  };

  bool finish(const Folder& source, const File& target) {
    struct stat status = {};
    if (fstat(source.fd(), &status) < 0) return fail("fstat", from_path_);
    return stamp(source.fd(), target.fd(), status);
  }

  bool fill(const Folder& source, int to, int target, const std::string& folder) {
    while (const dirent* const found = source.next()) {
      if (cancelled()) return false;
      const char* const name = found->d_name;
      struct stat status = {};
      if (fstatat(source.fd(), name, &status, AT_SYMLINK_NOFOLLOW) < 0) return fail("fstatat", joined(folder, name));
      if (S_ISDIR(status.st_mode)) {
        if (mkdirat(target, name, 0700) < 0) return fail("mkdirat", joined(folder, name));
        pending_.push_back({joined(folder, name), false});
        continue;
      }
      if (status.st_nlink > 1) {
        const auto [first, is_new] = names_.insert({status.st_ino, joined(folder, name)});
        if (!is_new) {
          if (linkat(to, first->second.c_str(), target, name, 0) < 0) return fail("linkat", joined(folder, name));
          continue;
        }
      }
      if (!(S_ISREG(status.st_mode) ? copy_file(source.fd(), target, name, status)
                                    : copy_node(source.fd(), target, name, status))) {
        return false;
      }
    }
    return true;
  }

  bool copy_file(int source, int target, const char* name, const struct stat& status) {
    const File from(openat(source, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (!from.is_open()) return fail("openat", name);
    const File to(openat(target, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!to.is_open()) return fail("openat", name);
    if (ioctl(to.fd(), FICLONE, from.fd()) < 0 && !copy_data(from.fd(), to.fd(), name, status.st_size)) return false;
    return stamp(from.fd(), to.fd(), status);
  }

  // Holes stay holes.
  bool copy_data(int from, int to, const char* name, off_t size) {
    off_t offset = 0;
    while (offset < size) {
      const off_t begin = lseek(from, offset, SEEK_DATA);
      if (begin < 0 && errno == ENXIO) break;
      if (begin < 0) return fail("lseek", name);
      const off_t end = lseek(from, begin, SEEK_HOLE);
      if (end < 0) return fail("lseek", name);
      if (!copy_range(from, to, name, begin, end)) return false;
      offset = end;
    }
    return ftruncate(to, size) == 0 || fail("ftruncate", name);
  }

  bool copy_range(int from, int to, const char* name, off_t begin, off_t end) {
    while (begin < end) {
      if (cancelled()) return false;
      const size_t length = std::min(static_cast<size_t>(end - begin), kChunk);
      off_t out = begin;
      const ssize_t count = copy_file_range(from, &begin, to, &out, length, 0);
      if (count == 0) return true;
      if (count > 0) continue;
      // Filesystems that cannot, or not with each other (copy_file_range(2)).
      if (errno != EXDEV && errno != EINVAL && errno != EOPNOTSUPP && errno != ENOSYS) return fail("copy_file_range", name);
      const ssize_t got = pread(from, buffer_.data(), std::min(length, buffer_.size()), begin);
      if (got < 0) return fail("pread", name);
      if (got == 0) return true;
      const ssize_t put = pwrite(to, buffer_.data(), static_cast<size_t>(got), begin);
      if (put < 0) return fail("pwrite", name);
      begin += put;
    }
    return true;
  }

  bool copy_node(int source, int target, const char* name, const struct stat& status) {
    if (S_ISLNK(status.st_mode)) {
      std::string text(static_cast<size_t>(status.st_size) + 1, '\0');
      const ssize_t length = readlinkat(source, name, &text[0], text.size());
      if (length < 0) return fail("readlinkat", name);
      text.resize(static_cast<size_t>(length));
      if (symlinkat(text.c_str(), target, name) < 0) return fail("symlinkat", name);
    } else if (mknodat(target, name, status.st_mode, status.st_rdev) < 0) {
      return fail("mknodat", name);
    }
    if (fchownat(target, name, status.st_uid, status.st_gid, AT_SYMLINK_NOFOLLOW) < 0) return fail("fchownat", name);
    if (!S_ISLNK(status.st_mode) && fchmodat(target, name, status.st_mode & 07777, 0) < 0) return fail("fchmodat", name);
    if (!copy_xattrs(path_of(source, name), path_of(target, name))) return false;
    const timespec times[2] = {status.st_atim, status.st_mtim};
    return utimensat(target, name, times, AT_SYMLINK_NOFOLLOW) == 0 || fail("utimensat", name);
  }

  // Attributes of what is open. Owner before mode and capabilities, which changing it clears.
  bool stamp(int from, int to, const struct stat& status) {
    if (fchown(to, status.st_uid, status.st_gid) < 0) return fail("fchown", to_path_);
    if (fchmod(to, status.st_mode & 07777) < 0) return fail("fchmod", to_path_);
    if (!copy_xattrs(path_of(from, "."), path_of(to, "."))) return false;
    const timespec times[2] = {status.st_atim, status.st_mtim};
    return futimens(to, times) == 0 || fail("futimens", to_path_);
  }

  // There is no call that takes a folder and a name before Linux 6.13 (setxattrat(2)).
  static std::string path_of(int fd, const char* name) {
    const std::string path = "/proc/self/fd/" + std::to_string(fd);
    return std::string(name) == "." ? path : path + "/" + name;
  }

  bool copy_xattrs(const std::string& from, const std::string& to) {
    const bool is_open = from.find('/', sizeof "/proc/self/fd/" - 1) == std::string::npos;
    // The name of an open file is itself a link, which has to be followed.
    const auto list = is_open ? listxattr : llistxattr;
    const auto get = is_open ? getxattr : lgetxattr;
    const auto set = is_open ? setxattr : lsetxattr;
    std::vector<char> names(kMostXattr);
    const ssize_t size = list(from.c_str(), names.data(), names.size());
    if (size < 0) return errno == ENOTSUP || fail("listxattr", from);
    for (const char* name = names.data(); name < names.data() + size; name += std::string(name).size() + 1) {
      const ssize_t length = get(from.c_str(), name, buffer_.data(), buffer_.size());
      if (length < 0 && errno != ENODATA) return fail("getxattr", name);
      if (length < 0 || set(to.c_str(), name, buffer_.data(), static_cast<size_t>(length), 0) == 0) continue;
      // Security modules keep some to themselves; the copy gets its own.
      if (errno != EPERM && errno != ENOTSUP && errno != EACCES) return fail("setxattr", name);
    }
    return true;
  }

  const std::string from_path_;
  const std::string to_path_;
  std::vector<char> buffer_;
  std::vector<Visit> pending_;
  // The first name of every file that has several.
  std::map<ino_t, std::string> names_;
};

napi_value copy_tree(Call& call) {
  std::string from = call.text(0);
  std::string to = call.text(1);
  if (call.rejected()) return nullptr;
  return Job::start(call, 2, std::make_unique<Copy>(std::move(from), std::move(to)));
}

}  // namespace

void define_copy(napi_env env, napi_value exports) { define<copy_tree>(env, exports, "copyTree"); }

}  // namespace moor
