// SPDX-License-Identifier: Apache-2.0
#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

namespace lodge {

void UniqueFd::reset(int fd) {
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

Result<std::vector<std::byte>> readFile(const std::string& path, std::uint64_t limit) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return Error::fromErrno(errno, "open '" + path + "'");
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return Error::fromErrno(errno, "stat '" + path + "'");
  if (S_ISDIR(info.st_mode)) return Error::fromErrno(EISDIR, "read '" + path + "'");
  if (static_cast<std::uint64_t>(info.st_size) > limit) {
    return Error(ErrorKind::invalidArgument, "read '" + path + "': larger than " + std::to_string(limit) + " bytes");
  }
  std::vector<std::byte> data;
  data.resize(static_cast<std::size_t>(info.st_size));
  std::size_t done = 0;
  for (;;) {
    if (done == data.size()) {
      if (done > limit) return Error(ErrorKind::invalidArgument, "read '" + path + "': too large");
      if (S_ISREG(info.st_mode)) break;
      data.resize(data.size() + 65536);
    }
    ssize_t n = ::read(fd.get(), data.data() + done, data.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Error::fromErrno(errno, "read '" + path + "'");
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
  }
  data.resize(done);
  return data;
}

}  // namespace lodge
