// SPDX-License-Identifier: Apache-2.0
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "base/text.h"
#include "cli/image_common.h"

namespace lodge::cli {

namespace {

std::vector<std::string> entriesOf(const std::string& folder) {
  std::vector<std::string> names;
  DIR* stream = ::opendir(folder.c_str());
  if (!stream) return names;
  while (const dirent* entry = ::readdir(stream)) {
    std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  ::closedir(stream);
  return names;
}

}  // namespace

Result<std::unique_ptr<FreshFile>> FreshFile::begin(const std::string& path, bool severalFiles) {
  std::unique_ptr<FreshFile> fresh(new FreshFile);
  fresh->final_ = path;
  struct stat info {};
  if (::stat(path.c_str(), &info) == 0) {
    if (S_ISBLK(info.st_mode)) {
      fresh->path_ = path;
      fresh->inPlace_ = true;
      return fresh;
    }
    // Nobody may be using what is about to go, and a link stays a link.
    auto old = image::hostFiles().open(path, {.readOnly = false});
    if (!old) return std::move(old).error();
    if (auto real = image::hostFiles().canonical(path)) fresh->final_ = *real;
  }
  std::string folder = image::folderOf(fresh->final_), name = image::fileNameOf(fresh->final_);
  std::string pattern = folder + "/." + name + ".XXXXXX";
  if (severalFiles) {
    if (!::mkdtemp(pattern.data())) return Error::fromErrno(errno, "make a folder in " + inQuotes(folder));
    fresh->folder_ = pattern;
    fresh->path_ = pattern + "/" + name;
  } else {
    int fd = ::mkstemp(pattern.data());
    if (fd < 0) return Error::fromErrno(errno, "make a file in " + inQuotes(folder));
    mode_t mask = ::umask(0);
    ::umask(mask);
    ::fchmod(fd, 0666 & ~mask);
    ::close(fd);
    fresh->path_ = pattern;
  }
  return fresh;
}

FreshFile::~FreshFile() {
  if (inPlace_ || path_.empty()) return;
  if (folder_.empty()) {
    ::unlink(path_.c_str());
    return;
  }
  for (const std::string& name : entriesOf(folder_)) ::unlink((folder_ + "/" + name).c_str());
  ::rmdir(folder_.c_str());
}

Status FreshFile::commit() {
  if (inPlace_) return {};
  std::string target = image::folderOf(final_), name = image::fileNameOf(final_);
  // The file with the name comes last: it makes the others an image.
  for (const std::string& other : folder_.empty() ? std::vector<std::string>() : entriesOf(folder_)) {
    if (other == name) continue;
    if (std::rename((folder_ + "/" + other).c_str(), (target + "/" + other).c_str()) != 0)
      return Error::fromErrno(errno, "move " + inQuotes(other) + " into place");
  }
  // A file whose room was taken first has nothing that ext4 would write at the rename by itself: begin that here.
  if (UniqueFd fd{::access(final_.c_str(), F_OK) == 0 ? ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1})
    ::sync_file_range(fd.get(), 0, 0, SYNC_FILE_RANGE_WRITE);
  if (std::rename(path_.c_str(), final_.c_str()) != 0) return Error::fromErrno(errno, "move it to " + inQuotes(final_));
  if (!folder_.empty()) ::rmdir(folder_.c_str());
  path_.clear();
  return {};
}

}  // namespace lodge::cli
