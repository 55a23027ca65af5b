// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
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

  /// What read() and write() do, while a guest's vector registers are live in the processor's: of devices that guests
  /// access very often, in code that is compiled for that (cmake/lodge.cmake). False: nothing was done, and read() or
  /// write() must, with the registers saved.
  virtual bool readLive(std::uint64_t, unsigned, std::uint64_t&) { return false; }
  virtual bool writeLive(std::uint64_t, unsigned, std::uint64_t) { return false; }
};

/// Address decoding: ranges to devices. Lookups take no lock; devices must outlive their registration, and removal
/// waits for nothing (a device is removed by a vCPU that moves a BAR, never freed while vCPUs run).
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

  /// IoDevice::readLive() and writeLive() of the device that answers there.
  bool readLive(std::uint64_t address, unsigned size, std::uint64_t& value) const;
  bool writeLive(std::uint64_t address, unsigned size, std::uint64_t value) const;

 private:
  struct Range {
    std::uint64_t base, length;
    IoDevice* device;
    std::string name;
  };
  /// What lookups see of ranges_, in the same order. Places are made again when there are too few; the old ones stay,
  /// for whoever still looks there.
  struct Place {
    std::atomic<std::uint64_t> base, length;
    std::atomic<IoDevice*> device;
  };
  struct Places {
    explicit Places(std::size_t count) : all(count) {}
    std::vector<Place> all;
    std::atomic<std::size_t> used{0};
  };
  struct Found {
    IoDevice* device = nullptr;
    std::uint64_t offset = 0;
    bool whole = true;  ///< the access lies in one device's range, or in none's
  };
  void publishLocked();
  static const Place* placeOf(const Places& places, std::uint64_t address);
  /// False: ranges changed meanwhile.
  bool tryFind(std::uint64_t address, unsigned size, Found& found) const;
  Found find(std::uint64_t address, unsigned size) const;

  std::string name_;
  std::mutex mutex_;
  std::vector<Range> ranges_;  // sorted by base
  std::vector<std::unique_ptr<Places>> places_;
  std::atomic<const Places*> current_{nullptr};
  std::atomic<std::uint64_t> version_{0};  ///< odd while places change
};

}  // namespace lodge
