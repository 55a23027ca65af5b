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
#include <chrono>
#include <condition_variable>
#include <fstream>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/crc32c.h"
#include "base/file.h"
#include "base/text.h"
#include "base/units.h"
#include "image/image_files.h"
#include "image/nbd_client.h"
#include "image/patience.h"

namespace lodge {

namespace {

// A file system notes at its beginning that it was mounted, a partition table is at both ends.
constexpr std::uint64_t kEndBytes = 2_MiB, kSampleBytes = 64_KiB, kSamples = 64;
constexpr std::uint64_t kPartBytes = 256_KiB;  // at once

/// A part of a disk, and what it holds.
struct Part {
  std::uint64_t from;
  std::vector<std::byte> bytes;
};

/// Those that are compared, not read yet.
std::vector<Part> samplesOf(std::uint64_t bytes) {
  std::vector<Part> parts;
  auto add = [&parts](std::uint64_t from, std::uint64_t length) {
    for (std::uint64_t done = 0; done < length; done += kPartBytes) {
      auto size = static_cast<std::size_t>(std::min(kPartBytes, length - done));
      parts.push_back({from + done, std::vector<std::byte>(size)});
    }
  };
  if (bytes <= 2 * kEndBytes + kSamples * kSampleBytes) {
    add(0, bytes);
    return parts;
  }
  add(0, kEndBytes);
  std::uint64_t step = (bytes - 2 * kEndBytes) / kSamples;
  for (std::uint64_t n = 0; n < kSamples; ++n) add(kEndBytes + n * step, kSampleBytes);
  add(bytes - kEndBytes, kEndBytes);
  return parts;
}

std::uint32_t sumOf(const std::vector<Part>& parts) {
  std::uint32_t sum = 0;
  for (const Part& part : parts) sum = crc32c(part.bytes, sum);
  return sum;
}

/// Fills it, or what of it is before the end. 0, or an errno value.
int readPart(int fd, Part& part) {
  for (std::size_t done = 0; done < part.bytes.size();) {
    ssize_t got = ::pread(fd, part.bytes.data() + done, part.bytes.size() - done, static_cast<off_t>(part.from + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno;
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  return 0;
}

/// A look at a network disk: its threads may outlive who waits for it, where the server is silent.
struct NetworkLook {
  std::string path{};
  std::size_t most = 0;  ///< parts that are read
  std::mutex mutex{};
  std::condition_variable changed{};
  std::shared_ptr<image::BlockFile> file{};
  std::vector<Part> parts{};
  std::size_t next = 0, read = 0;
  bool isOpen = false;
  Status status{};

  bool isOver() const { return !status || (isOpen && read == parts.size()); }
  void open() {
    std::shared_ptr<image::BlockFile> opened = image::openedNbd(path);
    Status done;
    if (!opened) {
      if (auto made = image::hostFiles().open(path, {}))
        opened = std::move(*made);
      else
        done = std::move(made).error();
    }
    std::lock_guard lock(mutex);
    if (opened) parts = samplesOf(opened->size());
    if (parts.size() > most) parts.resize(most);
    file = std::move(opened);
    status = std::move(done);
    isOpen = true;
    changed.notify_all();
  }
  void readParts() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [this] { return isOpen; });
    while (status && next < parts.size()) {
      Part& part = parts[next++];
      lock.unlock();
      int error = file->read(part.from, part.bytes.data(), part.bytes.size());
      lock.lock();
      ++read;
      if (error != 0 && status) status = Error::fromErrno(error, "read the disk " + inQuotes(path));
    }
    if (isOver()) changed.notify_all();
  }
};

/// Reads `most` of the samples, several at once. Null where the time is up.
std::shared_ptr<NetworkLook> lookAtNetworkDisk(const std::string& path, std::size_t most) {
  constexpr std::size_t kAtOnce = 8;
  auto look = std::make_shared<NetworkLook>();
  look->path = path;
  look->most = most;
  std::vector<std::thread> threads;
  threads.emplace_back([look] {
    look->open();
    look->readParts();
  });
  for (std::size_t n = 1; n < std::min(kAtOnce, most); ++n) threads.emplace_back([look] { look->readParts(); });
  std::unique_lock lock(look->mutex);
  bool over = look->changed.wait_for(lock, image::kServerPatience, [&] { return look->isOver(); });
  bool ends = over && look->status.ok();  // else some may wait for the server still
  lock.unlock();
  for (std::thread& t : threads) ends ? t.join() : t.detach();
  return over ? look : nullptr;
}

Error isSilent(const std::string& path) {
  return image::unanswered("read the disk " + inQuotes(path));
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
    auto look = lookAtNetworkDisk(path, ~std::size_t{0});
    if (!look) return isSilent(path);
    std::lock_guard lock(look->mutex);
    if (!look->status) return Error(look->status.error());
    identity.bytes = look->file->size();
    identity.samples = sumOf(look->parts);
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
  std::vector<Part> parts = samplesOf(identity.bytes);
  for (Part& part : parts) {
    int error = readPart(fd.get(), part);
    if (error == 0) continue;
    errno = error;
    return failed();
  }
  identity.samples = sumOf(parts);
  countWrites(info.st_rdev, identity);
  return identity;
}

Status DiskIdentity::answers(const std::string& path) {
  auto look = lookAtNetworkDisk(path, 1);
  if (!look) return isSilent(path);
  std::lock_guard lock(look->mutex);
  return look->status ? Status{} : Status(Error(look->status.error()));
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
