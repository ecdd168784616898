// Reading trees of files, shared by what walks them.
#pragma once

#include <dirent.h>
#include <unistd.h>

#include <string>

#include "job.h"

namespace moor {

class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  bool is_open() const { return fd_ >= 0; }
  int fd() const { return fd_; }

 private:
  const int fd_;
};

bool is_dots(const char* name);

// A folder's entries without the two that every folder has. Takes over the descriptor.
class Folder {
 public:
  explicit Folder(int fd) : stream_(fd < 0 ? nullptr : fdopendir(fd)) {}
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() {
    if (stream_ != nullptr) closedir(stream_);
  }
  bool is_open() const { return stream_ != nullptr; }
  int fd() const { return dirfd(stream_); }
  const dirent* next() const {
    const dirent* found = nullptr;
    do found = readdir(stream_);
    while (found != nullptr && is_dots(found->d_name));
    return found;
  }

 private:
  DIR* const stream_;
};

// Opens the folder `path` of the tree at `root`, which the empty path names: no link is followed, no other mount entered.
int open_within(int root, const std::string& path);

// A path in a tree: the empty one is the root's.
std::string joined(const std::string& folder, const char* name);

}  // namespace moor
