// SPDX-License-Identifier: Apache-2.0
#include "control/machine_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "base/text.h"
#include "base/units.h"
#include "control/runtime_folder.h"

namespace lodge::control {

namespace {

/// sun_path has 108 bytes; a folder's descriptor gives every socket in it a short name.
sockaddr_un addressIn(int folderFd, const char* socketName) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  auto end =
      fmt::format_to_n(address.sun_path, sizeof address.sun_path - 1, "/proc/self/fd/{}/{}", folderFd, socketName);
  *end.out = '\0';
  return address;
}

Status writeAll(int fd, std::string_view data) {
  while (!data.empty()) {
    ssize_t n = ::write(fd, data.data(), data.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Error::fromErrno(errno, "write");
    data.remove_prefix(static_cast<std::size_t>(n));
  }
  return {};
}

}  // namespace

MachineFolder::MachineFolder(std::string name, std::string runtimePath, UniqueFd runtimeFd, UniqueFd folderFd,
                             UniqueFd lockFd)
    : name_(std::move(name)),
      runtimePath_(std::move(runtimePath)),
      runtimeFd_(std::move(runtimeFd)),
      folderFd_(std::move(folderFd)),
      lockFd_(std::move(lockFd)) {}

MachineFolder::~MachineFolder() {
  if (!lockFd_) return;
  if (!keep_) {
    // Without the lock nobody would be hurt either: while lockFd_ is open, others take the machine for a living one.
    auto lock = RuntimeLock::take(runtimeFd_.get());
    [[maybe_unused]] Status removed = removeFolder(runtimeFd_.get(), name_);
  }
}

Status MachineFolder::write(const char* file, std::string_view content) {
  std::string temporary = std::string(".") + file;
  UniqueFd fd(::openat(folderFd_.get(), temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  std::string what = "write " + inQuotes(path() + "/" + file);
  if (!fd) return Error::fromErrno(errno, what);
  if (Status written = writeAll(fd.get(), content); !written) return std::move(written).error().context(what);
  if (::renameat(folderFd_.get(), temporary.c_str(), folderFd_.get(), file) != 0) return Error::fromErrno(errno, what);
  return {};
}

Result<UniqueFd> MachineFolder::openLog() {
  UniqueFd fd(::openat(folderFd_.get(), file::kLog, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!fd) return Error::fromErrno(errno, "open " + inQuotes(path() + "/" + file::kLog));
  return fd;
}

Result<UniqueFd> MachineFolder::listen() {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un address = addressIn(folderFd_.get(), file::kControl);
  constexpr int kBacklog = 16;
  if (!fd || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(fd.get(), kBacklog) != 0) {
    return Error::fromErrno(errno, "control socket " + inQuotes(path() + "/" + file::kControl));
  }
  return fd;
}

Status MachineFolder::keep(const EndRecord& record, std::string_view console) {
  if (Status written = write(file::kConsole, console); !written) return written;
  if (Status written = write(file::kEnd, toLine(record.toJson())); !written) return written;
  ::unlinkat(folderFd_.get(), file::kControl, 0);
  keep_ = true;
  return {};
}

std::string readSmallFile(int folderFd, const char* name) {
  UniqueFd fd(::openat(folderFd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat info {};
  if (!fd || ::fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode) || info.st_size > static_cast<off_t>(1_MiB))
    return {};
  std::string text(static_cast<std::size_t>(info.st_size), '\0');
  ssize_t n = ::pread(fd.get(), text.data(), text.size(), 0);
  text.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
  return text;
}

Status removeFolder(int runtimeFd, const std::string& name) {
  std::string what = "remove machine folder " + inQuotes(name);
  UniqueFd fd(::openat(runtimeFd, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd && errno == ENOENT) return {};
  std::unique_ptr<DIR, int (*)(DIR*)> stream(fd ? ::fdopendir(fd.get()) : nullptr,
                                             [](DIR* d) { return ::closedir(d); });
  if (!stream) return Error::fromErrno(errno, what);
  int folder = fd.release();  // the stream's now
  while (const dirent* entry = ::readdir(stream.get())) {
    if (std::strcmp(entry->d_name, ".") != 0 && std::strcmp(entry->d_name, "..") != 0) {
      ::unlinkat(folder, entry->d_name, 0);
    }
  }
  if (::unlinkat(runtimeFd, name.c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT) return Error::fromErrno(errno, what);
  return {};
}

Result<UniqueFd> connectIn(int folderFd, const char* socketName) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = addressIn(folderFd, socketName);
  if (!fd || ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return Error::fromErrno(errno, "connect to the control socket");
  }
  return fd;
}

}  // namespace lodge::control
