// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <vector>

#include "base/error.h"

namespace lodge {

/// Something that answers at a range of I/O ports or guest-physical addresses. It sees offsets from the range's start,
/// not addresses. Called from any vCPU's thread, several at once: a device guards its own state with its own mutex.
/// `size` is 1, 2, 4 or 8 bytes (ports: 1, 2, 4); `offset + size` never passes the range's end. Guest input is hostile:
/// every offset and value must be answered.
class IoDevice {
 public:
  virtual ~IoDevice() = default;
  virtual std::uint64_t read(std::uint64_t offset, unsigned size) = 0;
  virtual void write(std::uint64_t offset, unsigned size, std::uint64_t value) = 0;
};

/// Address decoding: ranges to devices. Lookups take a shared lock only long enough to find the device; devices must
/// outlive their registration, and removal waits for nothing (a device is removed by a vCPU that moves a BAR, never
/// freed while vCPUs run).
class IoBus {
 public:
  /// All-ones reads for what nobody answers. `name` for error messages ("port I/O", "memory").
  explicit IoBus(std::string name) : name_(std::move(name)) {}

  /// Errors: alreadyExists if [base, base+length) overlaps another range (the message names it).
  Status add(std::uint64_t base, std::uint64_t length, IoDevice& device, std::string deviceName);
  /// Removes the range that starts at `base`.
  void remove(std::uint64_t base);

  /// The value, zero-extended; all ones if no device answers. An access across a range's end is split into bytes.
  std::uint64_t read(std::uint64_t address, unsigned size);
  void write(std::uint64_t address, unsigned size, std::uint64_t value);

 private:
  struct Range {
    std::uint64_t base, length;
    IoDevice* device;
    std::string name;
  };
  const Range* findLocked(std::uint64_t address) const;
  bool find(std::uint64_t address, unsigned size, IoDevice*& device, std::uint64_t& offset, bool& whole) const;

  std::string name_;
  mutable std::shared_mutex mutex_;
  std::vector<Range> ranges_;  // sorted by base
};

}  // namespace lodge
