// SPDX-License-Identifier: Apache-2.0
#include "memory/lazy_memory.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/trace.h"
#include "memory/shared_pages.h"

namespace lodge {

namespace {
/// What the guest wants now goes first, for so long.
constexpr int kHeadStartMilliseconds = 300;

/// Where the host has no memory left just now.
constexpr unsigned kMostTries = 100;
constexpr std::chrono::milliseconds kPause{10};

/// So many touches of what waits within a second are no longer an idle machine's.
constexpr unsigned kBusyTouches = 1024;

/// Whether the kernel's own accesses may wait is a privilege; devices do without (GuestMemory::span()).
UniqueFd openUserfaultfd(bool kernelWaits) {
  int flags = O_CLOEXEC | O_NONBLOCK | (kernelWaits ? 0 : static_cast<int>(UFFD_USER_MODE_ONLY));
  return isWithheld(HostFeature::userfaultfd) ? UniqueFd()
                                              : UniqueFd(static_cast<int>(::syscall(SYS_userfaultfd, flags)));
}

bool isZeroPage(const std::byte* page) {
  return page[0] == std::byte{0} && std::memcmp(page, page + 1, kPageSize - 1) == 0;
}

/// Whether the host gives shared memory in huge pages that nobody asked for: "always [within_size] advise never...".
bool hugePagesComeUnasked() {
  UniqueFd fd(::open("/sys/kernel/mm/transparent_hugepage/shmem_enabled", O_RDONLY | O_CLOEXEC));
  char text[80] = "";
  if (fd) text[std::max<ssize_t>(::read(fd.get(), text, sizeof text - 1), 0)] = '\0';
  return std::strstr(text, "[always]") || std::strstr(text, "[within_size]");
}
}  // namespace

LazyMemory::LazyMemory(const Setup& setup)
    : setup_(setup),
      pieceBytes_(setup.source.pieceBytes()),
      pieces_(static_cast<std::size_t>((setup.bytes + pieceBytes_ - 1) / pieceBytes_)),
      waits_(dynamic_cast<const SharedPages*>(&setup.source) != nullptr),
      buffer_(pieceBytes_),
      loaded_(pieces_) {}

LazyMemory::~LazyMemory() {
  stop();
}

void LazyMemory::stop() {
  if (!thread_.joinable()) return;
  stopping_ = true;
  hurry();
  thread_.join();
}

void LazyMemory::hurry() {
  std::uint64_t one = 1;
  [[maybe_unused]] ssize_t n = ::write(call_.get(), &one, sizeof one);
}

bool LazyMemory::isPossible() {
  UniqueFd fd = openUserfaultfd(false);
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = UFFD_FEATURE_MISSING_SHMEM;
  return fd && ::ioctl(fd.get(), UFFDIO_API, &api) == 0;
}

std::size_t LazyMemory::lengthOf(std::size_t piece) const {
  return static_cast<std::size_t>(std::min<std::uint64_t>(pieceBytes_, setup_.bytes - piece * pieceBytes_));
}

Result<std::unique_ptr<LazyMemory>> LazyMemory::start(const Setup& setup) {
  auto lazy = std::unique_ptr<LazyMemory>(new LazyMemory(setup));
  if (!lazy->open()) {
    lazy->fault_.reset();
    if (Status s = lazy->loadAllNow(); !s) return std::move(s).error();
    return lazy;
  }
  setup.loading.store(true, std::memory_order_release);
  lazy->thread_ = std::thread([l = lazy.get()] { l->run(); });
  return lazy;
}

bool LazyMemory::open() {
  fault_ = openUserfaultfd(true);
  kernelWaits_ = static_cast<bool>(fault_);
  if (!fault_ && !setup_.kernelTouches) fault_ = openUserfaultfd(false);
  if (!fault_) return false;
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = UFFD_FEATURE_MISSING_SHMEM;
  if (::ioctl(fault_.get(), UFFDIO_API, &api) != 0) return false;
  for (std::byte* view : setup_.views) {
    // Before Linux 6.4 khugepaged makes huge pages of watched memory, too, and fills what is missing with zeroes.
    ::madvise(view, setup_.bytes, MADV_NOHUGEPAGE);
    uffdio_register range{};
    range.range = {reinterpret_cast<std::uint64_t>(view), setup_.bytes};
    range.mode = UFFDIO_REGISTER_MODE_MISSING;
    if (::ioctl(fault_.get(), UFFDIO_REGISTER, &range) != 0) return false;
  }
  call_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  return static_cast<bool>(call_);
}

Status LazyMemory::loadAllNow() {
  for (std::size_t piece = 0; piece < pieces_; ++piece) {
    if (setup_.source.isZero(piece)) continue;
    std::span<std::byte> to(setup_.views[0] + piece * pieceBytes_, lengthOf(piece));
    if (Status s = setup_.source.load(piece, to); !s) return s;
  }
  return {};
}

void LazyMemory::run() {
  pthread_setname_np(pthread_self(), "memory loader");
  int wait = waits_ ? -1 : kHeadStartMilliseconds;
  for (;;) {
    pollfd ready[2] = {{fault_.get(), POLLIN, 0}, {call_.get(), POLLIN, 0}};
    int n = ::poll(ready, 2, wait);
    if (n < 0 && errno != EINTR) return;
    if (stopping_) return;
    if (n > 0 && ready[1].revents != 0) {
      std::uint64_t calls = 0;
      [[maybe_unused]] ssize_t taken = ::read(call_.get(), &calls, sizeof calls);
      wait = 0;
    }
    if (n == 0) {
      wait = 0;
      if (!loadNext()) return end();
      continue;
    }
    uffd_msg message{};
    if (::read(fault_.get(), &message, sizeof message) != sizeof message) continue;
    if (message.event == UFFD_EVENT_PAGEFAULT) serve(message.arg.pagefault.address);
    if (waits_ && isBusy()) wait = 0;
  }
}

bool LazyMemory::isBusy() {
  auto now = std::chrono::steady_clock::now();
  if (now - touchesSince_ > std::chrono::seconds(1)) {
    touchesSince_ = now;
    touches_ = 0;
  }
  return ++touches_ > kBusyTouches;
}

void LazyMemory::serve(std::uint64_t address) {
  for (std::byte* view : setup_.views) {
    std::uint64_t offset = address - reinterpret_cast<std::uint64_t>(view);
    if (offset >= setup_.bytes) continue;
    offset &= ~std::uint64_t{kPageMask};
    need(offset, kPageSize);
    // What is zero is not part of what was loaded.
    fillZero(offset, kPageSize);
    return wake(offset, kPageSize);
  }
}

bool LazyMemory::loadNext() {
  while (next_ < pieces_ && (loaded_[next_] != kMissing || setup_.source.isZero(next_))) ++next_;
  if (next_ == pieces_) return false;
  loadPiece(next_);
  return true;
}

void LazyMemory::need(std::uint64_t offset, std::uint64_t length) {
  if (length == 0) return;
  std::size_t last = static_cast<std::size_t>((offset + length - 1) / pieceBytes_);
  for (auto piece = static_cast<std::size_t>(offset / pieceBytes_); piece <= last && piece < pieces_; ++piece) {
    if (loaded_[piece].load(std::memory_order_acquire) == kMissing) loadPiece(piece);
  }
  if (!kernelWaits_) makePresent(offset, length);
}

/// What is zero was not loaded, and the kernel would not find it.
void LazyMemory::makePresent(std::uint64_t offset, std::uint64_t length) {
  std::uint64_t end = std::min(alignUp(offset + length, kPageSize), setup_.bytes);
  for (std::uint64_t at = alignDown(offset, kPageSize); at < end; at += kPageSize) {
    std::atomic<std::uint8_t>& progress = loaded_[static_cast<std::size_t>(at / pieceBytes_)];
    if (progress.load(std::memory_order_acquire) == kPresent) continue;
    fillZero(at, kPageSize);
    if (pieceBytes_ == kPageSize) progress.store(kPresent, std::memory_order_release);
  }
}

void LazyMemory::discarded(std::uint64_t offset, std::uint64_t length) {
  if (pieceBytes_ != kPageSize) return;
  for (std::uint64_t at = offset; at < offset + length; at += kPageSize) {
    std::uint8_t present = kPresent;
    loaded_[static_cast<std::size_t>(at / kPageSize)].compare_exchange_strong(present, kLoaded);
  }
}

void LazyMemory::loadPiece(std::size_t piece) {
  std::lock_guard lock(mutex_);
  if (loaded_[piece] != kMissing) return;
  std::uint64_t offset = piece * pieceBytes_;
  std::size_t length = lengthOf(piece);
  if (!setup_.source.isZero(piece)) {
    Status done = setup_.source.load(piece, std::span(buffer_).first(length));
    if (done) done = copyRuns(offset, length);
    if (!done && !failed_) {
      failed_ = true;
      setup_.onFailure(done.error());
      failure_ = std::move(done);
    }
  }
  loaded_[piece].store(kLoaded, std::memory_order_release);
}

/// The pages with something in them; the others are left to be made when they are touched.
Status LazyMemory::copyRuns(std::uint64_t offset, std::size_t length) {
  unsigned tries = 0;
  Status whole;
  for (std::size_t at = 0; at < length;) {
    std::size_t start = at;
    while (at < length && !isZeroPage(buffer_.data() + at)) at += kPageSize;
    for (std::size_t done = start; done < at;) {
      uffdio_copy copy{};
      copy.dst = reinterpret_cast<std::uint64_t>(setup_.views[0] + offset + done);
      copy.src = reinterpret_cast<std::uint64_t>(buffer_.data() + done);
      copy.len = at - done;
      copy.mode = UFFDIO_COPY_MODE_DONTWAKE;
      ::ioctl(fault_.get(), UFFDIO_COPY, &copy);
      if (copy.copy > 0) {
        done += static_cast<std::size_t>(copy.copy);
        continue;
      }
      auto error = static_cast<int>(-copy.copy);
      if (error == EAGAIN) continue;
      if (error == ENOMEM && tries++ < kMostTries) {
        std::this_thread::sleep_for(kPause);
        continue;
      }
      if (error != EEXIST) whole = Error::fromErrno(error, "load guest memory");  // else it is there already
      done += kPageSize;
    }
    while (at < length && isZeroPage(buffer_.data() + at)) at += kPageSize;
  }
  wake(offset, length);
  return whole;
}

void LazyMemory::fillZero(std::uint64_t offset, std::uint64_t length) {
  uffdio_zeropage zero{};
  zero.range = {reinterpret_cast<std::uint64_t>(setup_.views[0] + offset), length};
  zero.mode = UFFDIO_ZEROPAGE_MODE_DONTWAKE;
  do {
    ::ioctl(fault_.get(), UFFDIO_ZEROPAGE, &zero);
  } while (zero.zeropage == -EAGAIN);
}

void LazyMemory::wake(std::uint64_t offset, std::uint64_t length) {
  for (std::byte* view : setup_.views) {
    uffdio_range range{reinterpret_cast<std::uint64_t>(view + offset), length};
    ::ioctl(fault_.get(), UFFDIO_WAKE, &range);
  }
}

void LazyMemory::end() {
  for (std::byte* view : setup_.views) {
    uffdio_range range{reinterpret_cast<std::uint64_t>(view), setup_.bytes};
    ::ioctl(fault_.get(), UFFDIO_UNREGISTER, &range);
  }
  // Linux wakes who waits before it ends the watch: who came to wait in between (faults are taken with the area's lock
  // alone since 6.6) would do so for ever. After it nobody comes.
  wake(0, setup_.bytes);
  // There is no advice that takes one back: elsewhere huge pages come only to who asks for them anew, as KVM does.
  if (hugePagesComeUnasked()) {
    for (std::byte* view : setup_.views) ::madvise(view, setup_.bytes, MADV_HUGEPAGE);
  }
  setup_.loading.store(false, std::memory_order_release);
}

Status LazyMemory::finish() {
  std::scoped_lock ending(ending_);
  if (thread_.joinable()) {
    for (std::size_t piece = 0; piece < pieces_; ++piece) {
      if (!isLoaded(piece) && !setup_.source.isZero(piece)) loadPiece(piece);
    }
    // What is zero is watched still, and the host's kernel would not find it.
    stop();
    if (setup_.loading) end();  // the thread may have come to its end before: whoever watches memory now is another
  }
  std::lock_guard lock(mutex_);
  return failed_ ? Status(Error(failure_.error())) : Status{};
}

}  // namespace lodge
