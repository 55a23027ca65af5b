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
#include <vector>

#include "base/crc32c.h"
#include "base/file.h"
#include "base/text.h"
#include "base/units.h"

namespace lodge {

namespace {

// A file system notes at its beginning that it was mounted, a partition table is at both ends.
constexpr std::uint64_t kEndBytes = 2_MiB, kSampleBytes = 64_KiB, kSamples = 64;

/// Continues `sum` over a part of the device. Errors: errno.
bool addPart(int fd, std::uint64_t from, std::uint64_t length, std::uint32_t& sum) {
  std::vector<std::byte> part(static_cast<std::size_t>(length));
  for (std::size_t done = 0; done < part.size();) {
    ssize_t got = ::pread(fd, part.data() + done, part.size() - done, static_cast<off_t>(from + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return false;
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  sum = crc32c(part, sum);
  return true;
}

bool addSamples(int fd, std::uint64_t bytes, std::uint32_t& sum) {
  if (bytes <= 2 * kEndBytes + kSamples * kSampleBytes) return addPart(fd, 0, bytes, sum);
  if (!addPart(fd, 0, kEndBytes, sum)) return false;
  std::uint64_t step = (bytes - 2 * kEndBytes) / kSamples;
  for (std::uint64_t n = 0; n < kSamples; ++n) {
    if (!addPart(fd, kEndBytes + n * step, kSampleBytes, sum)) return false;
  }
  return addPart(fd, bytes - kEndBytes, kEndBytes, sum);
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
  if (path.find("://") != std::string::npos) return identity;
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
  if (!addSamples(fd.get(), identity.bytes, identity.samples)) return failed();
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
