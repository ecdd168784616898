// Subvolumes of btrfs (btrfs-ioctl(2)). Most of these wait for a commit of the filesystem.
#include <fcntl.h>
#include <linux/btrfs.h>
#include <linux/btrfs_tree.h>
#include <sys/ioctl.h>

#include <cstring>

#include "tree.h"

namespace moor {
namespace {

class Subvolume : public Job {
 protected:
  // Runs an ioctl on a folder.
  bool act(const std::string& folder, unsigned long request, void* argument, const char* what) {
    const File file(open_folder(folder));
    if (!file.is_open()) return fail("open", folder);
    return ioctl(file.fd(), request, argument) == 0 || fail(what, folder);
  }

  static int open_folder(const std::string& path) { return open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }

  template <size_t size>
  bool put_name(char (&field)[size], const std::string& name) {
    if (name.size() >= size) return fail_with(ENAMETOOLONG, "ioctl", name);
    memcpy(field, name.c_str(), name.size() + 1);
    return true;
  }
};

class Create : public Subvolume {
 public:
  Create(std::string folder, std::string name) : folder_(std::move(folder)), name_(std::move(name)) {}
  bool run() override {
    btrfs_ioctl_vol_args_v2 argument = {};
    return put_name(argument.name, name_) && act(folder_, BTRFS_IOC_SUBVOL_CREATE_V2, &argument, "BTRFS_IOC_SUBVOL_CREATE_V2");
  }

 private:
  const std::string folder_, name_;
};

class Snapshot : public Subvolume {
 public:
  Snapshot(std::string from, std::string folder, std::string name, bool is_read_only)
      : from_(std::move(from)), folder_(std::move(folder)), name_(std::move(name)), is_read_only_(is_read_only) {}
  bool run() override {
    const File from(open_folder(from_));
    if (!from.is_open()) return fail("open", from_);
    btrfs_ioctl_vol_args_v2 argument = {};
    argument.fd = from.fd();
    argument.flags = is_read_only_ ? BTRFS_SUBVOL_RDONLY : 0;
    return put_name(argument.name, name_) && act(folder_, BTRFS_IOC_SNAP_CREATE_V2, &argument, "BTRFS_IOC_SNAP_CREATE_V2");
  }

 private:
  const std::string from_, folder_, name_;
  const bool is_read_only_;
};

class ReadOnly : public Subvolume {
 public:
  ReadOnly(std::string path, bool is_on) : path_(std::move(path)), is_on_(is_on) {}
  bool run() override {
    uint64_t flags = 0;
    if (!act(path_, BTRFS_IOC_SUBVOL_GETFLAGS, &flags, "BTRFS_IOC_SUBVOL_GETFLAGS")) return false;
    if (((flags & BTRFS_SUBVOL_RDONLY) != 0) == is_on_) return true;
    flags ^= BTRFS_SUBVOL_RDONLY;
    return act(path_, BTRFS_IOC_SUBVOL_SETFLAGS, &flags, "BTRFS_IOC_SUBVOL_SETFLAGS");
  }

 private:
  const std::string path_;
  const bool is_on_;
};

class Delete : public Subvolume {
 public:
  Delete(std::string folder, std::string name) : folder_(std::move(folder)), name_(std::move(name)) {}
  bool run() override {
    btrfs_ioctl_vol_args argument = {};
    return put_name(argument.name, name_) && act(folder_, BTRFS_IOC_SNAP_DESTROY, &argument, "BTRFS_IOC_SNAP_DESTROY");
  }

 private:
  const std::string folder_, name_;
};

napi_value create_subvolume(Call& call) {
  std::string folder = call.text(0);
  std::string name = call.text(1);
  if (call.rejected()) return nullptr;
  return Job::start(call, 2, std::make_unique<Create>(std::move(folder), std::move(name)));
}

napi_value snapshot_subvolume(Call& call) {
  std::string from = call.text(0);
  std::string folder = call.text(1);
  std::string name = call.text(2);
  const bool is_read_only = call.flag(3);
  if (call.rejected()) return nullptr;
  return Job::start(call, 4,
                    std::make_unique<Snapshot>(std::move(from), std::move(folder), std::move(name), is_read_only));
}

napi_value set_read_only(Call& call) {
  std::string path = call.text(0);
  const bool is_on = call.flag(1);
  if (call.rejected()) return nullptr;
  return Job::start(call, 2, std::make_unique<ReadOnly>(std::move(path), is_on));
}

napi_value delete_subvolume(Call& call) {
  std::string folder = call.text(0);
  std::string name = call.text(1);
  if (call.rejected()) return nullptr;
  return Job::start(call, 2, std::make_unique<Delete>(std::move(folder), std::move(name)));
}

napi_value subvolume_id(Call& call) {
  const std::string path = call.text(0);
  if (call.rejected()) return nullptr;
  const File file(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!file.is_open()) return call.fail("open", path);
  // A tree of 0 means the one that the descriptor is in.
  btrfs_ioctl_ino_lookup_args argument = {};
  argument.objectid = BTRFS_FIRST_FREE_OBJECTID;
  if (ioctl(file.fd(), BTRFS_IOC_INO_LOOKUP, &argument) < 0) return call.fail("BTRFS_IOC_INO_LOOKUP", path);
  return call.number(static_cast<double>(argument.treeid));
}

}  // namespace

void define_subvolume(napi_env env, napi_value exports) {
  define<create_subvolume>(env, exports, "createSubvolume");
  define<snapshot_subvolume>(env, exports, "snapshotSubvolume");
  define<set_read_only>(env, exports, "setSubvolumeReadOnly");
  define<delete_subvolume>(env, exports, "deleteSubvolume");
  define<subvolume_id>(env, exports, "subvolumeId");
}

}  // namespace moor
