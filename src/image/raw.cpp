// SPDX-License-Identifier: Apache-2.0
#include "image/raw.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/file.h"
#include "base/units.h"
#include "image/file_lock.h"

namespace lodge {

namespace {

constexpr std::uint64_t kSector = 512;

class RawFile : public Store {
 public:
  RawFile(UniqueFd fd, std::uint64_t size, bool device) : fd_(std::move(fd)), size_(size), device_(device) {}

  std::uint64_t size() const override { return size_; }
  int read(std::uint64_t offset, std::span<const iovec> to) override { return readFully(fd_.get(), offset, to, true); }
  int write(std::uint64_t offset, std::span<const iovec> from) override { return writeFully(fd_.get(), offset, from); }
  int flush() override { return ::fdatasync(fd_.get()) == 0 ? 0 : errno; }

  int discard(std::uint64_t offset, std::uint64_t length) override {
    int error = device_ ? deviceRange(BLKDISCARD, offset, length) : punch(offset, length);
    return error == EOPNOTSUPP || error == ENODEV || error == ENOTTY ? 0 : error;  // discard is advice
  }

  int writeZeroes(std::uint64_t offset, std::uint64_t length, bool mayUnmap) override {
    int error = EOPNOTSUPP;
    if (device_)
      error = deviceRange(BLKZEROOUT, offset, length);
    else if (mayUnmap)
      error = punch(offset, length);
    else if (::fallocate(fd_.get(), FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, off(offset), off(length)) == 0)
      error = 0;
    else
      error = errno;
    return error == 0 || error == ENOSPC ? error : writeZeroBytes(offset, length);
  }

 private:
  static off_t off(std::uint64_t value) { return static_cast<off_t>(value); }

  int punch(std::uint64_t offset, std::uint64_t length) {
    return ::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off(offset), off(length)) == 0 ? 0
                                                                                                             : errno;
  }
  int deviceRange(unsigned long request, std::uint64_t offset, std::uint64_t length) {
    std::uint64_t range[2] = {offset, length};
    return ::ioctl(fd_.get(), request, range) == 0 ? 0 : errno;
  }
  int writeZeroBytes(std::uint64_t offset, std::uint64_t length) {
    static const std::array<std::byte, 65536> zeroes{};
    while (length != 0) {
      std::size_t part = std::min<std::uint64_t>(length, zeroes.size());
      iovec v{const_cast<std::byte*>(zeroes.data()), part};
      if (int error = writeFully(fd_.get(), offset, {&v, 1}); error != 0) return error;
      offset += part;
      length -= part;
    }
    return 0;
  }

  UniqueFd fd_;
  std::uint64_t size_;
  bool device_;
};

}  // namespace

Result<std::unique_ptr<Store>> openRaw(const std::string& path, bool readOnly) {
  UniqueFd fd(::open(path.c_str(), (readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC));
  if (!fd) {
    int error = errno;
    auto failure = Error::fromErrno(error, "open disk '" + path + "'");
    if (!readOnly && (error == EACCES || error == EROFS || error == EPERM)) {
      return std::move(failure).withHint("add ',readonly' to --disk, or use --snapshot");
    }
    return failure;
  }
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return Error::fromErrno(errno, "stat disk '" + path + "'");
  std::uint64_t size = static_cast<std::uint64_t>(info.st_size);
  bool device = S_ISBLK(info.st_mode);
  if (device && ::ioctl(fd.get(), BLKGETSIZE64, &size) != 0)
    return Error::fromErrno(errno, "size of disk '" + path + "'");
  if (!device && !S_ISREG(info.st_mode)) {
    return Error(ErrorKind::invalidArgument, "open disk '" + path + "': neither a regular file nor a block device");
  }
  if (size == 0)
    return Error(ErrorKind::invalidArgument, "open disk '" + path + "': empty")
        .withHint("give it a size: truncate -s 1G FILE");
  if (Status locked = lockImage(fd.get(), !readOnly, path); !locked) return std::move(locked).error();
  return std::unique_ptr<Store>(std::make_unique<RawFile>(std::move(fd), alignUp(size, kSector), device));
}

}  // namespace lodge
