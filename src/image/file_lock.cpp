// SPDX-License-Identifier: Apache-2.0
#include "image/file_lock.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fstream>

namespace lodge {

namespace {

constexpr off_t kUsedBase = 100, kUnsharedBase = 200;
constexpr unsigned kConsistentRead = 1 << 0, kWrite = 1 << 1, kResize = 1 << 3;
constexpr int kRights = 5;

int setLock(int fd, off_t byte) {
  struct flock lock {};
  lock.l_type = F_RDLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  return ::fcntl(fd, F_OFD_SETLK, &lock) == 0 ? 0 : errno;
}

/// Whether somebody else holds a lock on `byte`.
bool isHeld(int fd, off_t byte) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  return ::fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

/// OFD locks belong to no process: whoever has the file open is named, as far as /proc lets us look.
std::string holder(int fd) {
  struct stat wanted {};
  if (::fstat(fd, &wanted) != 0) return "";
  DIR* proc = ::opendir("/proc");
  if (!proc) return "";
  std::string found;
  while (const dirent* entry = ::readdir(proc)) {
    int pid = std::atoi(entry->d_name);
    if (pid <= 0 || pid == ::getpid()) continue;
    std::string folder = "/proc/" + std::to_string(pid);
    DIR* fds = ::opendir((folder + "/fd").c_str());
    if (!fds) continue;
    while (const dirent* f = ::readdir(fds)) {
      struct stat info {};
      if (f->d_name[0] == '.' || ::stat((folder + "/fd/" + f->d_name).c_str(), &info) != 0) continue;
      if (info.st_dev != wanted.st_dev || info.st_ino != wanted.st_ino) continue;
      std::string name;
      std::getline(std::ifstream(folder + "/comm"), name);
      found = name + ", process " + std::to_string(pid);
      break;
    }
    ::closedir(fds);
    if (!found.empty()) break;
  }
  ::closedir(proc);
  return found;
}

Error busy(int fd, const std::string& path) {
  std::string who = holder(fd);
  return Error(ErrorKind::busy, "lock '" + path + "': in use" + (who.empty() ? "" : " by " + who))
      .withHint("stop what uses it, or only read: -U of image commands, readonly or --snapshot of a machine's disk");
}

}  // namespace

Status lockImage(int fd, bool writing, const std::string& path) {
  unsigned used = kConsistentRead | (writing ? kWrite | kResize : 0u);
  unsigned unshared = kWrite | kResize;
  for (int right = 0; right < kRights; ++right) {
    for (auto [mask, base] : {std::pair{used, kUsedBase}, std::pair{unshared, kUnsharedBase}}) {
      if ((mask >> right & 1) == 0) continue;
      int error = setLock(fd, base + right);
      if (error == EAGAIN || error == EACCES) return busy(fd, path);
      if (error != 0) return {};  // no locks on this file system
    }
  }
  for (int right = 0; right < kRights; ++right) {
    bool taken = ((used >> right & 1) != 0 && isHeld(fd, kUnsharedBase + right)) ||
                 ((unshared >> right & 1) != 0 && isHeld(fd, kUsedBase + right));
    if (taken) return busy(fd, path);
  }
  return {};
}

}  // namespace lodge
