// SPDX-License-Identifier: Apache-2.0
#include "virtio/balloon.h"

#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "memory/huge_file.h"

namespace lodge::virtio {

namespace {
namespace bit {
constexpr std::uint64_t statistics = 1 << 1, deflateOnOom = 1 << 2, pageReporting = 1 << 5;
}
/// struct virtio_balloon_config (5.5.4).
struct Config {
  std::uint32_t target, actual, freePageHint, poison;
};
struct [[gnu::packed]] Statistic {
  std::uint16_t tag;
  std::uint64_t value;
};
constexpr unsigned kPageShift = 12;
}  // namespace

std::uint64_t BalloonDevice::features() const {
  return bit::statistics | bit::deflateOnOom | bit::pageReporting;
}

std::uint32_t BalloonDevice::readConfig(std::uint64_t offset, unsigned size) {
  Config c{target_, actual_, 0, 0};
  return readConfigBytes(&c, sizeof c, offset, size);
}

void BalloonDevice::writeConfig(std::uint64_t offset, unsigned size, std::uint32_t value) {
  if (offset == 4 && size == 4) actual_ = value;
}

void BalloonDevice::disableQueue(unsigned queue) {
  QueuedDevice::disableQueue(queue);
  if (queue != stats) return;
  std::lock_guard lock(statisticsMutex_);
  holding_ = false;
  heldStatistics_ = Chain{};
}

void BalloonDevice::reset() {
  QueuedDevice::reset();
  actual_ = 0;
}

std::vector<const Chain*> BalloonDevice::held(unsigned queue) const {
  if (holding_ && queue == stats) return {&heldStatistics_};
  return {};
}

void BalloonDevice::transfer(state::Archive& a) {
  std::lock_guard lock(statisticsMutex_);
  QueuedDevice::transfer(a);
  a(target_, actual_, statistics_);
}

unsigned BalloonDevice::roleOf(unsigned queue) const {
  if (queue < 2) return queue;
  bool hasStatistics = (features_ & bit::statistics) != 0;
  return queue == 2 && hasStatistics ? stats : reporting;
}

void BalloonDevice::notify(unsigned queue) {
  drain(queue, [&](Chain chain) {
    switch (roleOf(queue)) {
      case inflate:
        takePages(chain);
        return finish(queue, std::move(chain), 0);
      case stats:
        return takeStatistics(std::move(chain));
      case reporting:
        for (const iovec& v : chain.writable) {
          std::uint64_t offset = static_cast<std::uint64_t>(static_cast<std::byte*>(v.iov_base) - memory_.deviceView());
          giveBack(memory_.gpaOf(offset), v.iov_len);
          reported_ += v.iov_len;
        }
        return finish(queue, std::move(chain), 0);
      default:
        return finish(queue, std::move(chain), 0);  // deflated pages come back as they are touched
    }
  });
}

/// Huge pages that were set aside for the machine stay the machine's, as they are: the guest expects nothing of them.
void BalloonDevice::giveBack(Gpa gpa, std::uint64_t length) {
  if (!takesReservedHugePages()) memory_.discard(gpa, length);
}

void BalloonDevice::takePages(const Chain& chain) {
  // Runs of neighbouring pages go back to the host in one call each.
  std::uint64_t start = 0, pages = 0;
  auto flush = [&] {
    if (pages != 0) giveBack(Gpa{start << kPageShift}, pages << kPageShift);
    pages = 0;
  };
  for (const iovec& v : chain.readable) {
    for (std::size_t i = 0; i + 4 <= v.iov_len; i += 4) {
      std::uint64_t page = loadLe<std::uint32_t>(static_cast<const char*>(v.iov_base) + i);
      if (pages != 0 && page == start + pages) {
        ++pages;
        continue;
      }
      flush();
      start = page;
      pages = 1;
    }
  }
  flush();
}

void BalloonDevice::takeStatistics(Chain chain) {
  std::lock_guard lock(statisticsMutex_);
  statistics_.fill(~std::uint64_t{0});
  for (const iovec& v : chain.readable) {
    for (std::size_t i = 0; i + sizeof(Statistic) <= v.iov_len; i += sizeof(Statistic)) {
      auto s = loadLe<Statistic>(static_cast<const char*>(v.iov_base) + i);
      if (s.tag < kStatistics) statistics_[s.tag] = s.value;
    }
  }
  // The buffer is kept: returning it asks for the next statistics (5.5.6.3).
  heldStatistics_ = std::move(chain);
  holding_ = true;
}

std::array<std::uint64_t, BalloonDevice::kStatistics> BalloonDevice::statistics() {
  std::lock_guard lock(statisticsMutex_);
  return statistics_;
}

void BalloonDevice::requestStatistics() {
  std::lock_guard lock(statisticsMutex_);
  if (!holding_) return;
  holding_ = false;
  finish(stats, std::move(heldStatistics_), 0);
}

void BalloonDevice::setTarget(std::uint32_t pages) {
  target_ = pages;
  if (transport_) transport_->signalConfig();
}

}  // namespace lodge::virtio
