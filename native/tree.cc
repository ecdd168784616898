// Whole trees of files: what they take, copying them, removing them. Trees are hostile: a container may be changing one while it
// is read, its names are any bytes, and it is as deep as its maker liked. So every folder is opened from the tree's root in one
// step that follows no link and enters no other mount, and only one at a time is open.
#include "tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <set>
#include <vector>

namespace moor {

bool is_dots(const char* name) { return name[0] == '.' && (name[1] == 0 || (name[1] == '.' && name[2] == 0)); }

int open_within(int root, const std::string& path) {
  open_how how = {};
  how.flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV;
  return static_cast<int>(syscall(SYS_openat2, root, path.empty() ? "." : path.c_str(), &how, sizeof how));
}

std::string joined(const std::string& folder, const char* name) {
  return folder.empty() ? std::string(name) : folder + "/" + name;
}

namespace {

// What a walk finds when it comes later than the container that works there.
bool has_vanished(int number) { return number == ENOENT || number == ENOTDIR || number == ELOOP; }

class Usage : public Job {
 public:
  Usage(std::string path, std::string base) : path_(std::move(path)), base_(std::move(base)) {}

  bool run() override {
    const File root(open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!root.is_open()) return fail("open", path_);
    const File base(base_.empty() ? -1 : open(base_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!base_.empty() && !base.is_open()) return fail("open", base_);
    if (!count(root.fd(), base.fd(), "", AT_EMPTY_PATH)) return false;
    pending_.emplace_back();
    while (!pending_.empty()) {
      const std::string folder = std::move(pending_.back());
      pending_.pop_back();
      if (!read(root.fd(), base.fd(), folder)) return false;
    }
    return true;
  }

  napi_value result(napi_env env) override {
    napi_value pair, size, inodes;
    napi_create_object(env, &pair);
    napi_create_double(env, static_cast<double>(size_), &size);
    napi_create_double(env, static_cast<double>(inodes_), &inodes);
    napi_set_named_property(env, pair, "size", size);
    napi_set_named_property(env, pair, "inodes", inodes);
    return pair;
  }

 private:
  bool read(int root, int base, const std::string& folder) {
    const Folder here(open_within(root, folder));
    if (!here.is_open()) return has_vanished(errno) || errno == EXDEV || fail("openat2", path_ + "/" + folder);
    const File there(base < 0 ? -1 : open_within(base, folder));
    while (const dirent* const found = here.next()) {
      if (cancelled() || !count(here.fd(), there.fd(), found->d_name, 0)) return false;
      if (is_folder_) pending_.push_back(joined(folder, found->d_name));
    }
    return true;
  }

  bool count(int here, int there, const char* name, int flags) {
    struct stat status = {};
    is_folder_ = false;
    if (fstatat(here, name, &status, AT_SYMLINK_NOFOLLOW | flags) < 0) return has_vanished(errno) || fail("fstatat", name);
    is_folder_ = S_ISDIR(status.st_mode);
    if (there >= 0 && is_same(there, name, flags, status)) return true;
    // Only what has several names can come again.
    if (!is_folder_ && status.st_nlink > 1 && !seen_.insert({status.st_dev, status.st_ino}).second) return true;
    inodes_ += 1;
    size_ += static_cast<uint64_t>(status.st_blocks) * 512;
    return true;
  }

  // A snapshot of a filesystem keeps inode numbers, and whatever changes an inode changes its ctime.
  static bool is_same(int there, const char* name, int flags, const struct stat& status) {
    struct stat old = {};
    return fstatat(there, name, &old, AT_SYMLINK_NOFOLLOW | flags) == 0 && old.st_ino == status.st_ino &&
           old.st_ctim.tv_sec == status.st_ctim.tv_sec && old.st_ctim.tv_nsec == status.st_ctim.tv_nsec;
  }

  const std::string path_;
  const std::string base_;
  std::vector<std::string> pending_;
  std::set<std::pair<dev_t, ino_t>> seen_;
  bool is_folder_ = false;
  uint64_t size_ = 0;
  uint64_t inodes_ = 0;
};

// Files that may not be changed may not be removed either, nor anything out of such a folder (ioctl_iflags(2)).
void allow_removal(int fd) {
  int flags = 0;
  if (fd < 0 || ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0 || (flags & (FS_IMMUTABLE_FL | FS_APPEND_FL)) == 0) return;
  flags &= ~(FS_IMMUTABLE_FL | FS_APPEND_FL);
  ioctl(fd, FS_IOC_SETFLAGS, &flags);
}

bool unlink_anyhow(int folder, const char* name, int flags) {
  if (unlinkat(folder, name, flags) == 0 || errno == ENOENT) return true;
  if (errno != EPERM) return false;
  allow_removal(folder);
  allow_removal(File(openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)).fd());
  return unlinkat(folder, name, flags) == 0 || errno == ENOENT;
}

class Removal : public Job {
 public:
  explicit Removal(std::string path) : path_(std::move(path)) {}

  bool run() override {
    const File root(open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!root.is_open()) return errno == ENOENT || fail("open", path_);
    pending_.emplace_back();
    while (!pending_.empty()) {
      const std::string folder = pending_.back();
      const size_t before = pending_.size();
      if (!empty(root.fd(), folder)) return false;
      // Folders it holds come first; then it is read again, in case something is left or new.
      if (pending_.size() > before) continue;
      if (!folder.empty() && !remove(root.fd(), folder)) return false;
      pending_.pop_back();
    }
    return unlink_anyhow(AT_FDCWD, path_.c_str(), AT_REMOVEDIR) || fail("rmdir", path_);
  }

 private:
  bool empty(int root, const std::string& folder) {
    const Folder here(open_within(root, folder));
    if (!here.is_open()) return has_vanished(errno) || fail("openat2", path_ + "/" + folder);
    while (const dirent* const found = here.next()) {
      if (cancelled()) return false;
      if (found->d_type != DT_DIR && unlink_anyhow(here.fd(), found->d_name, 0)) continue;
      // Filesystems may not tell the type, and say EISDIR or EPERM to who unlinks a folder (unlink(2)).
      if (found->d_type != DT_DIR && errno != EISDIR && errno != EPERM) return failed_at("unlinkat", folder, found->d_name);
      if (!enter(root, here.fd(), folder, found->d_name)) return false;
    }
    return true;
  }

  bool enter(int root, int here, const std::string& folder, const char* name) {
    if (folder.size() < kLongPath) {
      pending_.push_back(joined(folder, name));
      return true;
    }
    // Too deep to be named from the root for much longer: it goes on from there under a new name.
    for (;;) {
      const std::string higher = kRaised + std::to_string(raised_++);
      if (renameat2(here, name, root, higher.c_str(), RENAME_NOREPLACE) == 0) {
        pending_.push_back(higher);
        return true;
      }
      if (errno == EEXIST) continue;
      return errno == ENOENT || failed_at("renameat2", folder, name);
    }
  }

  bool remove(int root, const std::string& folder) {
    const size_t slash = folder.rfind('/');
    const bool is_top = slash == std::string::npos;
    const File parent(open_within(root, is_top ? "" : folder.substr(0, slash)));
    if (!parent.is_open()) return has_vanished(errno) || fail("openat2", path_ + "/" + folder);
    const char* const name = folder.c_str() + (is_top ? 0 : slash + 1);
    return unlink_anyhow(parent.fd(), name, AT_REMOVEDIR) || fail("rmdir", path_ + "/" + folder);
  }

  bool failed_at(const char* syscall, const std::string& folder, const char* name) {
    return fail(syscall, path_ + "/" + joined(folder, name));
  }

  static constexpr size_t kLongPath = 2048;
  static constexpr const char* kRaised = ".moor-raised-";
  const std::string path_;
  std::vector<std::string> pending_;
  uint64_t raised_ = 0;
};

napi_value tree_usage(Call& call) {
  std::string path = call.text(0);
  std::string base = call.text(1);
  if (call.rejected()) return nullptr;
  return Job::start(call, 2, std::make_unique<Usage>(std::move(path), std::move(base)));
}

napi_value remove_tree(Call& call) {
  std::string path = call.text(0);
  if (call.rejected()) return nullptr;
  return Job::start(call, 1, std::make_unique<Removal>(std::move(path)));
}

}  // namespace

void define_tree(napi_env env, napi_value exports) {
  define<tree_usage>(env, exports, "treeUsage");
  define<remove_tree>(env, exports, "removeTree");
}

}  // namespace moor
