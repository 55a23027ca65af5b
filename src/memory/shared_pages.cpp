// SPDX-License-Identifier: Apache-2.0
#include "memory/shared_pages.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <utility>

#include "memory/lazy_memory.h"

namespace lodge {

namespace {

/// A machine stands still for it: some 0.1 s.
constexpr std::uint64_t kMostAtOnce = 256_MiB / kPageSize;

bool isZeroPage(const std::byte* page) {
  return page[0] == std::byte{0} && std::memcmp(page, page + 1, kPageSize - 1) == 0;
}

/// Gives pages of a file back to the host, neighbours in one call; `after(start, end)` for each of these.
class Puncher {
 public:
  using After = std::function<void(std::uint64_t, std::uint64_t)>;
  Puncher(int fd, After after) : fd_(fd), after_(std::move(after)) {}
  void add(std::uint64_t offset) {
    if (offset != start_ + length_) flush();
    if (length_ == 0) start_ = offset;
    length_ += kPageSize;
    bytes_ += kPageSize;
  }
  std::uint64_t bytes() const { return bytes_; }
  void flush() {
    if (length_ == 0) return;
    ::fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(start_),
                static_cast<off_t>(length_));
    after_(start_, start_ + length_);
    length_ = 0;
  }

 private:
  int fd_;
  After after_;
  std::uint64_t start_ = 0, length_ = 0, bytes_ = 0;
};

/// Calls `visit(offset)` for pages of [from, end) that the file has, `most` at most. Where it ended.
template <class Visit>
std::uint64_t visitPages(int fd, std::uint64_t from, std::uint64_t end, std::uint64_t most, Visit visit) {
  std::uint64_t at = from;
  while (at < end && most != 0) {
    off_t data = ::lseek(fd, static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 || static_cast<std::uint64_t>(data) >= end) return end;
    off_t hole = ::lseek(fd, data, SEEK_HOLE);
    if (hole < 0) return end;
    std::uint64_t last = std::min(static_cast<std::uint64_t>(hole), end);
    for (at = static_cast<std::uint64_t>(data); at < last && most != 0; at += kPageSize, --most) visit(at);
  }
  return at;
}

}  // namespace

Status SharedPages::load(std::size_t piece, std::span<std::byte> to) const {
  std::memcpy(to.data(), store_.read(numbers_[piece] - 1).data(), to.size());
  report_->away.fetch_sub(1, std::memory_order_relaxed);
  return {};
}

void SharedPages::take(const SharedPages& before, const LazyMemory& lazy) {
  numbers_ = before.numbers_;
  for (std::size_t page = 0; page < numbers_.size(); ++page) {
    if (lazy.isLoaded(page)) numbers_[page] = 0;
  }
}

/// Of [start, end), which was given back: a huge page that cannot be split just now is cleared, and stays.
void SharedPages::bringBackWhatStayed(int fd, std::byte* ram, std::uint64_t start, std::uint64_t end) {
  visitPages(fd, start, end, ~std::uint64_t{0}, [&](std::uint64_t offset) {
    std::uint32_t number = std::exchange(numbers_[offset / kPageSize], 0);
    if (number != 0) std::memcpy(ram + offset, store_.read(number - 1).data(), kPageSize);
  });
}

bool SharedPages::share(int fd, std::byte* ram, std::uint64_t bytes, bool mayShare) {
  numbers_.resize(bytes / kPageSize);
  mayShare = mayShare && store_.begin();
  Puncher puncher(fd, [&](std::uint64_t start, std::uint64_t end) { bringBackWhatStayed(fd, ram, start, end); });
  auto visit = [&](std::uint64_t offset) {
    const std::byte* page = ram + offset;
    numbers_[offset / kPageSize] = 0;  // what the file has is not away
    if (isZeroPage(page)) return puncher.add(offset);
    auto number = mayShare ? store_.offer(PageStore::Page(page, kPageSize)) : std::nullopt;
    if (!number) return;
    numbers_[offset / kPageSize] = *number + 1;
    puncher.add(offset);
  };
  report_->next = visitPages(fd, report_->next < bytes ? report_->next : 0, bytes, kMostAtOnce, visit);
  puncher.flush();
  if (mayShare) store_.end();
  report_->givenBack = puncher.bytes();
  report_->away = static_cast<std::uint64_t>(std::ranges::count_if(numbers_, [](auto n) { return n != 0; }));
  return report_->away != 0;
}

}  // namespace lodge
