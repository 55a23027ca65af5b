// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "device/interrupt.h"
#include "device/msi_route.h"
#include "memory/io_bus.h"
#include "state/archive.h"

namespace lodge {

/// The MSI-X table and pending bit array of one function (PCI Local Bus 3.0, 6.8.2), as the device behind their BAR.
/// Owned by a PciFunction. signal() comes from any thread, register accesses from vCPU threads. Messages are sent with
/// the table's mutex held, so that after a guest's masking write has ended no message of that vector follows.
class MsixTable : public IoDevice {
 public:
  /// `vectors` 1..2048.
  explicit MsixTable(unsigned vectors);
  ~MsixTable() override;

  std::uint64_t barSize() const { return barSize_; }
  std::uint32_t pbaOffset() const { return pbaOffset_; }
  unsigned vectors() const { return static_cast<unsigned>(entries_.size()); }

  /// Where messages go; null until the function is plugged. A sink that is an MsiRouter, too, is told of the messages
  /// of all vectors that may send them now.
  void setSink(MsiSink* sink);
  /// Message control's enable and function mask, and the command register's bus master bit, which messages need as
  /// well.
  void setControl(bool enabled, bool functionMask, bool busMaster);
  bool enabled() const { return enabled_.load(std::memory_order_acquire); }
  void signal(unsigned vector);
  void reset();
  void transfer(state::Archive& a);

  std::uint64_t read(std::uint64_t offset, unsigned size) override;
  void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;

 private:
  static constexpr std::uint32_t kMasked = 1;
  struct Entry {
    std::uint32_t addressLow, addressHigh, data, control;
  };
  bool openLocked(unsigned vector) const { return !blocked_ && (entries_[vector].control & kMasked) == 0; }
  void sendLocked(unsigned vector);
  void sendPendingLocked(unsigned vector);
  void updateRouteLocked(unsigned vector);
  void updateRoutesLocked();

  std::uint32_t pbaOffset_;
  std::uint64_t barSize_;
  std::mutex mutex_;
  std::vector<Entry> entries_;
  std::vector<std::uint64_t> pending_;
  MsiSink* sink_ = nullptr;
  MsiRouter* router_ = nullptr;
  std::vector<MsiRoute> routes_;  ///< a vector each
  std::atomic<bool> enabled_{false};
  bool blocked_ = true;  // function mask, or no bus mastering
};

}  // namespace lodge
