// SPDX-License-Identifier: Apache-2.0
#include "image/page_filler.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "image/store.h"

namespace lodge::image {

namespace {

/// Below that, mapping takes longer than waiting.
constexpr std::uint64_t kWorthIt = 64 << 10;
/// How far the file's end lies ahead of what is written: pages are put in below the end only.
constexpr std::uint64_t kAhead = 64 << 20;

/// A stretch of a file in memory, mapped to be filled.
class Window {
 public:
  Window(int file, std::uint64_t offset, std::uint64_t length)
      : at_(::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, file, static_cast<off_t>(offset))),
        length_(length) {}
  ~Window() {
    if (*this) ::munmap(at_, length_);
  }
  Window(const Window&) = delete;
  Window& operator=(const Window&) = delete;
  explicit operator bool() const { return at_ != MAP_FAILED; }
  std::uint64_t address() const { return reinterpret_cast<std::uint64_t>(at_); }

 private:
  void* at_;
  std::uint64_t length_;
};

}  // namespace

std::unique_ptr<PageFiller> PageFiller::create(int file, std::uint64_t size) {
  struct rlimit limit {};
  if (::getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur != RLIM_INFINITY) return nullptr;
  UniqueFd faults(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY)));
  uffdio_api api{};
  api.api = UFFD_API;
  if (!faults || ::ioctl(faults.get(), UFFDIO_API, &api) != 0 || (api.features & UFFD_FEATURE_MISSING_SHMEM) == 0)
    return nullptr;
  return std::unique_ptr<PageFiller>(new PageFiller(file, size, std::move(faults)));
}

int PageFiller::write(std::uint64_t offset, std::span<const iovec> from) {
  std::unique_lock lock(writing_, std::try_to_lock);
  if (!lock) {
    if (from.size() == 1 && fill(offset, from[0])) return 0;
    lock.lock();
  }
  std::uint64_t end = offset;
  for (const iovec& v : from) end += v.iov_len;
  lengthen(end);
  int error = writeFully(file_, offset, from);
  if (error == 0) use(end);
  return error;
}

int PageFiller::trim() {
  std::lock_guard lock(writing_);
  std::lock_guard alone(cutting_);
  return length_ == size_ ? 0 : cutTo(size_);
}

int PageFiller::truncate(std::uint64_t size) {
  std::lock_guard lock(writing_);
  std::lock_guard alone(cutting_);
  return cutTo(size);
}

int PageFiller::cutTo(std::uint64_t size) {
  if (::ftruncate(file_, static_cast<off_t>(size)) != 0) return errno;
  length_ = size_ = size;
  return 0;
}

void PageFiller::use(std::uint64_t end) {
  std::uint64_t now = size_;
  while (now < end && !size_.compare_exchange_weak(now, end)) {
  }
}

/// Where that cannot be, the write makes the file as long as it needs.
void PageFiller::lengthen(std::uint64_t end) {
  if (end + kAhead / 2 <= length_) return;
  std::uint64_t length = std::max<std::uint64_t>(length_, end) + kAhead;
  if (::ftruncate(file_, static_cast<off_t>(length)) == 0)
    length_ = length;
  else
    length_ = std::max<std::uint64_t>(length_, end);
}

/// True if all of it is in the file. What was put there before it failed has the bytes that are to be there.
bool PageFiller::fill(std::uint64_t offset, const iovec& from) {
  static const auto kPage = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  std::uint64_t length = from.iov_len;
  if (length < kWorthIt || (offset | length) % kPage != 0) return false;
  std::shared_lock uncut(cutting_);
  if (offset + length > length_) return false;
  Window window(file_, offset, length);
  uffdio_register place{};
  place.range = {window.address(), length};
  place.mode = UFFDIO_REGISTER_MODE_MISSING;
  uffdio_copy copy{};
  copy.dst = window.address();
  copy.src = reinterpret_cast<std::uint64_t>(from.iov_base);
  copy.len = length;
  if (!window || ::ioctl(faults_.get(), UFFDIO_REGISTER, &place) != 0 ||
      ::ioctl(faults_.get(), UFFDIO_COPY, &copy) != 0)
    return false;
  use(offset + length);
  return true;
}

}  // namespace lodge::image
