// SPDX-License-Identifier: Apache-2.0
#include "memory/guest_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <shared_mutex>

#include "base/memory_file.h"
#include "memory/code_writes.h"
#include "memory/huge_file.h"
#include "memory/lazy_memory.h"
#include "memory/shared_pages.h"

namespace lodge {

namespace {
/// The size of a file of guest memory: whole huge pages, if it is made of such.
std::uint64_t mappedSize(std::uint64_t size) {
  return takesReservedHugePages() ? alignUp(size, kHugePage) : size;
}

// A page more than the size is reserved before and after each view, so that an access that runs off its end faults.
// Views begin where a huge page does, so that huge pages of the file can be mapped as such.
std::byte* mapView(int fd, std::uint64_t size, int protection) {
  size = mappedSize(size);
  std::uint64_t reserved = size + kHugePage + 2 * kPageSize;
  void* area = ::mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (area == MAP_FAILED) return nullptr;
  auto first = reinterpret_cast<std::uintptr_t>(area);
  std::uintptr_t at = (first + kPageSize + kHugePage - 1) & ~(kHugePage - 1);
  auto* base = static_cast<std::byte*>(area) + (at - first);
  if (at - kPageSize != first) ::munmap(area, at - kPageSize - first);
  ::munmap(base + size + kPageSize, first + reserved - (at + size + kPageSize));
  area = base - kPageSize;
  // Of reserved huge pages the mapping takes what it needs, so that the guest never finds that none are left.
  int flags = MAP_SHARED | MAP_FIXED | (takesReservedHugePages() ? 0 : MAP_NORESERVE);
  if (::mmap(base, size, protection, flags, fd, 0) == MAP_FAILED) {
    int saved = errno;
    ::munmap(area, size + 2 * kPageSize);
    errno = saved;
    return nullptr;
  }
  ::madvise(base, size, MADV_DONTDUMP);
  return base;
}

void unmapView(std::byte* base, std::uint64_t size) {
  size = mappedSize(size);
  if (base) ::munmap(base - kPageSize, size + 2 * kPageSize);
}

/// Whether the host never gives shared memory in huge pages: "always within_size advise [never] deny force".
bool sharedPagesAreSmall() {
  static const bool small = [] {
    UniqueFd fd(::open("/sys/kernel/mm/transparent_hugepage/shmem_enabled", O_RDONLY | O_CLOEXEC));
    char text[80] = "[never]";  // this kernel has none
    if (fd) text[std::max<ssize_t>(::read(fd.get(), text, sizeof text - 1), 0)] = '\0';
    return std::strstr(text, "[never]") || std::strstr(text, "[deny]");
  }();
  return small;
}

/// Held for reading while an observer of code is told of a write.
std::shared_mutex& codeWrites() {
  static std::shared_mutex mutex;
  return mutex;
}

/// From here on a write(2) is faster than a copy: a page that was never touched is neither cleared nor faulted in.
constexpr std::size_t kLargeWrite = 64_KiB;

/// Writes what it can to the file; returns how many bytes that was.
std::size_t writeToFile(int fd, std::uint64_t offset, std::span<const std::byte> from) {
  std::size_t done = 0;
  while (done < from.size()) {
    ssize_t n = ::pwrite(fd, from.data() + done, from.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    done += static_cast<std::size_t>(n);
  }
  return done;
}
}  // namespace

Result<std::unique_ptr<GuestMemory>> GuestMemory::create(std::uint64_t size, const Extra& extra) {
  if (size < 1_MiB || size > 1_TiB || size % kPageSize != 0) {
    return Error(ErrorKind::invalidArgument, "guest memory of " + std::to_string(size) + " bytes")
        .withHint("give a size from 1M to 1T");
  }
  auto memory = std::unique_ptr<GuestMemory>(new GuestMemory());
  memory->size_ = size;
  constexpr std::uint64_t kMaxExtra = 256_MiB;
  if (extra.rom > kMaxExtra || extra.video > kMaxExtra || (extra.rom | extra.video) % kPageSize != 0) {
    return Error(ErrorKind::invalidArgument, "firmware or video memory of that size");
  }
  memory->extra_ = extra;
  memory->videoDirty_ = std::make_unique<std::atomic<std::uint8_t>[]>(extra.video / kPageSize + 1);
  memory->lowSize_ = std::min(size, extra.lowLimit);
  bool reserved = takesReservedHugePages();
  memory->fd_ = reserved ? makeReservedHugeFile("lodge-guest-ram") : makeHugeMemoryFile("lodge-guest-ram");
  if (!memory->fd_ && reserved) {
    return Error::fromErrno(errno, "create guest memory of huge pages")
        .withHint("this host's kernel has no hugetlbfs; leave --hugepages out");
  }
  if (!memory->fd_) memory->fd_ = makeMemoryFile("lodge-guest-ram");
  if (!memory->fd_) return Error::fromErrno(errno, "create guest memory");
  if (::ftruncate(memory->fd_.get(), static_cast<off_t>(mappedSize(memory->backingSize()))) != 0) {
    return Error::fromErrno(errno, "size guest memory to " + std::to_string(size) + " bytes");
  }
  int fd = memory->fd_.get();
  size = memory->backingSize();
  memory->device_ = mapView(fd, size, PROT_READ | PROT_WRITE);
  if (!memory->device_ && reserved && errno == ENOMEM) return hugePagesMissing(mappedSize(size));
  if (memory->device_) memory->cpuRw_ = mapView(fd, size, PROT_READ | PROT_WRITE);
  if (memory->cpuRw_) memory->cpuRo_ = mapView(fd, size, PROT_READ);
  if (!memory->cpuRo_) return Error::fromErrno(errno, "map guest memory");
  void* codePages =
      ::mmap(nullptr, size >> 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (codePages == MAP_FAILED) return Error::fromErrno(errno, "map the code page table");
  memory->codePages_ = static_cast<std::atomic<std::uint8_t>*>(codePages);
  return memory;
}

GuestMemory::GuestMemory() = default;

GuestMemory::~GuestMemory() {
  lazy_.reset();
  unmapView(device_, backingSize());
  unmapView(cpuRw_, backingSize());
  unmapView(cpuRo_, backingSize());
  if (codePages_) ::munmap(static_cast<void*>(codePages_), backingSize() >> 12);
}

std::byte* GuestMemory::span(Gpa gpa, std::uint64_t length) const {
  std::uint64_t offset = writableOffsetOf(gpa);
  if (offset == kNoOffset || !contiguous(gpa, offset, length)) return nullptr;
  // The host's kernel, which may access what is handed out here, need not be able to wait for it.
  if (isLoading()) lazy_->need(offset, length);
  return device_ + offset;
}

Status GuestMemory::load(std::unique_ptr<MemorySource> source, bool kernelTouches,
                         std::function<void(const Error&)> onFailure) {
  if (auto* pages = dynamic_cast<SharedPages*>(source.get())) {
    auto* before = dynamic_cast<SharedPages*>(source_.get());
    if (isLoading() && !before) return Error(ErrorKind::busy, "a saved machine's memory is still being loaded");
    // What is being loaded in the background is either in the file or not, from here on.
    if (lazy_ && before) lazy_->stop();
    if (isLoading()) pages->take(*before, *lazy_);
    // From here on a page that neither the file nor `pages` has is zero.
    lazy_.reset();
    loading_ = false;
    if (!pages->share(fd_.get(), device_, size_, LazyMemory::isPossible())) return {};
  } else {
    // Who loaded before watches the views, and would put its own pieces there, until it is gone.
    lazy_.reset();
    loading_ = false;
    ::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(backingSize()));
  }
  LazyMemory::Setup setup{{device_, cpuRw_, cpuRo_}, backingSize(), *source, kernelTouches,
                          std::move(onFailure),      loading_};
  auto lazy = LazyMemory::start(setup);
  if (!lazy) return std::move(lazy).error();
  source_ = std::move(source);
  lazy_ = std::move(*lazy);
  return {};
}

Status GuestMemory::finishLoading() {
  return lazy_ ? lazy_->finish() : Status{};
}

void GuestMemory::hurryLoading() {
  if (isLoading()) lazy_->hurry();
}

bool GuestMemory::isSharing() const {
  return isLoading() && dynamic_cast<SharedPages*>(source_.get());
}

bool GuestMemory::contiguous(Gpa gpa, std::uint64_t offset, std::uint64_t length) const {
  std::uint64_t smram = smramBase_.load(std::memory_order_relaxed);
  std::uint64_t end = offset < lowSize_ ? std::min(lowSize_, smram) : offset < size_ ? size_ : backingSize();
  if (offset > end || length > end - offset) return false;
  if (!hasShadow_ || raw(gpa) >= kShadowEnd || raw(gpa) + length <= kShadowStart) return true;
  std::uint64_t last = std::min(raw(gpa) + length, kShadowEnd);
  for (std::uint64_t at = std::max(alignDown(raw(gpa), kPageSize), kShadowStart); at < last; at += kPageSize) {
    if (writableOffsetOf(Gpa{at}) != at) return false;
  }
  return true;
}

void GuestMemory::useShadowMap() {
  for (std::uint64_t at = kShadowStart; at < kShadowEnd; at += kPageSize) setShadowPage(Gpa{at}, at, true);
  hasShadow_ = true;
}

void GuestMemory::setShadowPage(Gpa gpa, std::uint64_t offset, bool writable) {
  std::uint64_t entry =
      offset == kNoOffset ? kNoOffset : alignDown(offset, kPageSize) | (writable ? kShadowWritable : 0);
  shadow_.at((raw(gpa) - kShadowStart) >> 12).store(entry, std::memory_order_relaxed);
}

void GuestMemory::mapRegion(unsigned index, Gpa base, std::uint64_t offset, std::uint64_t length) {
  Region& region = regions_.at(index);
  region.offset = offset;
  region.length = std::min(length, backingSize() - offset);
  region.base.store(raw(base), std::memory_order_release);
}

void GuestMemory::unmapRegion(unsigned index) {
  regions_.at(index).base.store(kNoOffset, std::memory_order_release);
}

bool GuestMemory::read(Gpa gpa, std::span<std::byte> to) const {
  if (to.empty()) return true;
  if (const std::byte* from = span(gpa, to.size())) {
    std::memcpy(to.data(), from, to.size());
    return true;
  }
  // In pieces: what is read-only, or lies in several places.
  for (std::size_t done = 0; done < to.size();) {
    std::uint64_t offset = offsetOf(gpa + done);
    if (offset == kNoOffset) return false;
    std::size_t part = std::min<std::size_t>(to.size() - done, kPageSize - (offset & kPageMask));
    std::memcpy(to.data() + done, device_ + offset, part);
    done += part;
  }
  return true;
}

bool GuestMemory::write(Gpa gpa, std::span<const std::byte> from) {
  if (from.empty()) return true;  // it need not have an address
  std::byte* to = span(gpa, from.size());
  if (!to) return false;
  std::size_t done = 0;
  if (from.size() >= kLargeWrite && sharedPagesAreSmall()) {
    done = writeToFile(fd_.get(), static_cast<std::uint64_t>(to - device_), from);
  }
  std::memcpy(to + done, from.data() + done, from.size() - done);
  written(gpa, from.size());
  return true;
}

bool GuestMemory::fill(Gpa gpa, std::byte value, std::uint64_t length) {
  std::byte* to = span(gpa, length);
  if (!to) return length == 0;
  std::memset(to, static_cast<int>(value), length);
  written(gpa, length);
  return true;
}

void GuestMemory::discard(Gpa gpa, std::uint64_t length) {
  std::uint64_t start = alignUp(raw(gpa), kPageSize);
  std::uint64_t end = alignDown(raw(gpa) + length, kPageSize);
  if (end <= start || !span(Gpa{start}, end - start)) return;
  if (takesReservedHugePages()) {
    // One that goes back is no longer the machine's, and may not be there when it is touched again.
    static_cast<void>(fill(Gpa{start}, std::byte{0}, end - start));
    return;
  }
  ::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offsetOf(Gpa{start})),
              static_cast<off_t>(end - start));
  if (isLoading()) lazy_->discarded(offsetOf(Gpa{start}), end - start);
  written(Gpa{start}, end - start);
}

std::uint64_t GuestMemory::residentBytes() const {
  struct stat info {};
  return ::fstat(fd_.get(), &info) == 0 ? static_cast<std::uint64_t>(info.st_blocks) * 512 : 0;
}

void GuestMemory::notifyCodeWritten(std::uint64_t offset, std::uint64_t length) {
  std::shared_lock lock(codeWrites());
  if (observer_) observer_->guestCodeWritten(offset, length);
}

void awaitCodeWrites() {
  std::unique_lock lock(codeWrites());
}

}  // namespace lodge
