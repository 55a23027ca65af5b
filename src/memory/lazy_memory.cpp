// SPDX-License-Identifier: Apache-2.0
#include "memory/lazy_memory.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace lodge {

namespace {
/// What the guest wants now goes first, for so long.
constexpr int kHeadStartMilliseconds = 300;

bool isZeroPage(const std::byte* page) {
  return page[0] == std::byte{0} && std::memcmp(page, page + 1, kPageSize - 1) == 0;
}
}  // namespace

LazyMemory::LazyMemory(const Setup& setup)
    : setup_(setup),
      pieceBytes_(setup.source.pieceBytes()),
      pieces_(static_cast<std::size_t>((setup.bytes + pieceBytes_ - 1) / pieceBytes_)),
      buffer_(pieceBytes_),
      loaded_(pieces_) {}

LazyMemory::~LazyMemory() {
  if (!thread_.joinable()) return;
  std::uint64_t one = 1;
  [[maybe_unused]] ssize_t n = ::write(stop_.get(), &one, sizeof one);
  thread_.join();
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
  // Whether the kernel's own accesses may wait here is a privilege; devices do without (GuestMemory::span()).
  for (unsigned flags : {0u, static_cast<unsigned>(UFFD_USER_MODE_ONLY)}) {
    fault_ = UniqueFd(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags)));
    if (fault_ || setup_.kernelTouches) break;
  }
  if (!fault_) return false;
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = UFFD_FEATURE_MISSING_SHMEM;
  if (::ioctl(fault_.get(), UFFDIO_API, &api) != 0) return false;
  for (std::byte* view : setup_.views) {
    uffdio_register range{};
    range.range = {reinterpret_cast<std::uint64_t>(view), setup_.bytes};
    range.mode = UFFDIO_REGISTER_MODE_MISSING;
    if (::ioctl(fault_.get(), UFFDIO_REGISTER, &range) != 0) return false;
  }
  stop_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  return static_cast<bool>(stop_);
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
  int wait = kHeadStartMilliseconds;
  for (;;) {
    pollfd ready[2] = {{fault_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    int n = ::poll(ready, 2, wait);
    if (n < 0 && errno != EINTR) return;
    if (ready[1].revents != 0) return;
    if (n == 0) {
      wait = 0;
      if (!loadNext()) return end();
      continue;
    }
    uffd_msg message{};
    if (::read(fault_.get(), &message, sizeof message) != sizeof message) continue;
    if (message.event == UFFD_EVENT_PAGEFAULT) serve(message.arg.pagefault.address);
  }
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
  while (next_ < pieces_ && (loaded_[next_] != 0 || setup_.source.isZero(next_))) ++next_;
  if (next_ == pieces_) return false;
  loadPiece(next_);
  return true;
}

void LazyMemory::need(std::uint64_t offset, std::uint64_t length) {
  if (length == 0) return;
  std::size_t last = static_cast<std::size_t>((offset + length - 1) / pieceBytes_);
  for (auto piece = static_cast<std::size_t>(offset / pieceBytes_); piece <= last && piece < pieces_; ++piece) {
    if (loaded_[piece].load(std::memory_order_acquire) == 0) loadPiece(piece);
  }
}

void LazyMemory::loadPiece(std::size_t piece) {
  std::lock_guard lock(mutex_);
  if (loaded_[piece] != 0) return;
  std::uint64_t offset = piece * pieceBytes_;
  std::size_t length = lengthOf(piece);
  if (!setup_.source.isZero(piece)) {
    Status done = setup_.source.load(piece, std::span(buffer_).first(length));
    if (done) {
      copyRuns(offset, length);
    } else if (!failed_) {
      failed_ = true;
      setup_.onFailure(done.error());
      failure_ = std::move(done);
    }
  }
  loaded_[piece].store(1, std::memory_order_release);
}

/// The pages with something in them; the others are left to be made when they are touched.
void LazyMemory::copyRuns(std::uint64_t offset, std::size_t length) {
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
      if (copy.copy > 0)
        done += static_cast<std::size_t>(copy.copy);
      else if (copy.copy != -EAGAIN)
        done += kPageSize;  // it is there already
    }
    while (at < length && isZeroPage(buffer_.data() + at)) at += kPageSize;
  }
  wake(offset, length);
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
  // Waiters, if any, were woken by that.
  setup_.loading.store(false, std::memory_order_release);
}

Status LazyMemory::finish() {
  if (!thread_.joinable()) return {};
  for (std::size_t piece = 0; piece < pieces_; ++piece) {
    if (loaded_[piece].load(std::memory_order_acquire) == 0 && !setup_.source.isZero(piece)) loadPiece(piece);
  }
  std::lock_guard lock(mutex_);
  return failed_ ? Status(Error(failure_.error())) : Status{};
}

}  // namespace lodge
