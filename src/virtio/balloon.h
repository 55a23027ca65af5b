// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>

#include "virtio/queue_set.h"

namespace lodge::virtio {

/// The traditional memory balloon (virtio 1.2, 5.5): pages that the guest lends back are given to the host, as are
/// those that it reports as free; statistics on request.
class BalloonDevice : public QueuedDevice {
 public:
  explicit BalloonDevice(GuestMemory& memory) : QueuedDevice(memory, 4), memory_(memory) {}
  DeviceType type() const override { return DeviceType::balloon; }
  std::uint64_t features() const override;
  std::uint32_t readConfig(std::uint64_t offset, unsigned size) override;
  void writeConfig(std::uint64_t offset, unsigned size, std::uint32_t value) override;
  void disableQueue(unsigned queue) override;
  void reset() override;
  void notify(unsigned queue) override;
  void transfer(state::Archive& a) override;

  /// Pages of 4 KiB that the guest is asked to lend. Any thread.
  void setTarget(std::uint32_t pages);
  std::uint32_t target() const { return target_; }
  /// Pages that it has lent.
  std::uint32_t actual() const { return actual_; }
  std::uint64_t reportedBytes() const { return reported_; }

  /// Statistics by tag (5.5.6.3), as last sent; all ones where the guest sent none. requestStatistics() asks for new
  /// ones.
  static constexpr unsigned kStatistics = 16;
  std::array<std::uint64_t, kStatistics> statistics();
  void requestStatistics();

 protected:
  std::vector<const Chain*> held(unsigned queue) const override;

 private:
  enum Queue : unsigned { inflate = 0, deflate = 1, stats = 2, reporting = 3 };
  void takePages(const Chain& chain);
  void giveBack(Gpa gpa, std::uint64_t length);
  void takeStatistics(Chain chain);
  /// The guest's optional queues are numbered without gaps.
  unsigned roleOf(unsigned queue) const;

  GuestMemory& memory_;
  std::atomic<std::uint32_t> target_{0}, actual_{0};
  std::atomic<std::uint64_t> reported_{0};
  std::mutex statisticsMutex_;
  std::array<std::uint64_t, kStatistics> statistics_{};
  Chain heldStatistics_;
  bool holding_ = false;
};

}  // namespace lodge::virtio
