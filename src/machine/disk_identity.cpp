// SPDX-License-Identifier: Apache-2.0
#include "machine/disk_identity.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <fstream>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/crc32c.h"
#include "base/file.h"
#include "base/text.h"
#include "base/units.h"
#include "image/image_files.h"
#include "image/nbd_client.h"

namespace lodge {

namespace {

// A file system notes at its beginning that it was mounted, a partition table is at both ends.
constexpr std::uint64_t kEndBytes = 2_MiB, kSampleBytes = 64_KiB, kSamples = 64;

/// Fills a piece from an offset on, or until the end. 0, or an errno value.
using Reader = std::function<int(std::uint64_t from, std::span<std::byte> to)>;

Reader readerOf(int fd) {
  return [fd](std::uint64_t from, std::span<std::byte> to) {
    for (std::size_t done = 0; done < to.size();) {
      ssize_t got = ::pread(fd, to.data() + done, to.size() - done, static_cast<off_t>(from + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return errno;
      if (got == 0) break;
      done += static_cast<std::size_t>(got);
    }
    return 0;
  };
}

/// Continues `sum` over a part of the device. 0, or an errno value.
int addPart(const Reader& read, std::uint64_t from, std::uint64_t length, std::uint32_t& sum) {
  std::vector<std::byte> part(static_cast<std::size_t>(length));
  if (int error = read(from, part); error != 0) return error;
  sum = crc32c(part, sum);
  return 0;
}

int addSamples(const Reader& read, std::uint64_t bytes, std::uint32_t& sum) {
  if (bytes <= 2 * kEndBytes + kSamples * kSampleBytes) return addPart(read, 0, bytes, sum);
  int error = addPart(read, 0, kEndBytes, sum);
  std::uint64_t step = (bytes - 2 * kEndBytes) / kSamples;
  for (std::uint64_t n = 0; n < kSamples && error == 0; ++n)
    error = addPart(read, kEndBytes + n * step, kSampleBytes, sum);
  return error != 0 ? error : addPart(read, bytes - kEndBytes, kEndBytes, sum);
}

Status lookAtNetworkDisk(DiskIdentity& identity) {
  std::shared_ptr<image::BlockFile> file = image::openedNbd(identity.path);
  if (!file) {
    auto made = image::hostFiles().open(identity.path, {});
    if (!made) return std::move(made).error();
    file = std::move(*made);
  }
  identity.bytes = file->size();
  auto read = [&](std::uint64_t from, std::span<std::byte> to) { return file->read(from, to.data(), to.size()); };
  int error = addSamples(read, identity.bytes, identity.samples);
  if (error != 0) return Error::fromErrno(error, "read the disk " + inQuotes(identity.path));
  return {};
}

/// Linux Documentation/block/stat.rst: the seventh number is sectors written.
void countWrites(dev_t device, DiskIdentity& identity) {
  std::ifstream counters(fmt::format("/sys/dev/block/{}:{}/stat", ::major(device), ::minor(device)));
  std::ifstream started("/proc/sys/kernel/random/boot_id");
  std::array<std::uint64_t, 7> numbers{};
  for (std::uint64_t& number : numbers) counters >> number;
  std::string boot;
  if (!counters || !(started >> boot)) return;
  identity.written = numbers.back();
  identity.boot = boot;
}

}  // namespace

Result<DiskIdentity> DiskIdentity::of(const std::string& path) {
  DiskIdentity identity{.path = path};
  if (image::isNetworkDisk(path)) {
    if (Status looked = lookAtNetworkDisk(identity); !looked) return std::move(looked).error();
    return identity;
  }
  auto failed = [&] { return Error::fromErrno(errno, "look at the disk " + inQuotes(path)); };
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return failed();
  if (S_ISREG(info.st_mode)) {
    identity.bytes = static_cast<std::uint64_t>(info.st_size);
    identity.changed = info.st_mtim.tv_sec * kNanosecondsPerSecond + info.st_mtim.tv_nsec;
  }
  if (!S_ISBLK(info.st_mode)) return identity;
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  // What waits in the host's memory is written, and counted, now.
  if (!fd || ::fdatasync(fd.get()) != 0) return failed();
  off_t end = ::lseek(fd.get(), 0, SEEK_END);
  if (end < 0) return failed();
  identity.bytes = static_cast<std::uint64_t>(end);
  if (int error = addSamples(readerOf(fd.get()), identity.bytes, identity.samples); error != 0) {
    errno = error;
    return failed();
  }
  countWrites(info.st_rdev, identity);
  return identity;
}

bool DiskIdentity::isStill(const DiskIdentity& then) const {
  if (then.bytes == 0 && then.changed == 0) return changed == 0;  // a device, of which an older state says nothing
  if (bytes != then.bytes || changed != then.changed || samples != then.samples) return false;
  return boot.empty() || boot != then.boot || written == then.written;
}

void transfer(state::Archive& a, DiskIdentity& d) {
  a(d.path, d.bytes, d.changed);
  if (a.version() >= 3) a(d.samples, d.written, d.boot);
}

}  // namespace lodge
