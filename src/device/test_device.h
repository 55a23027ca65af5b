// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/error.h"
#include "device/interrupt.h"
#include "memory/io_bus.h"

namespace lodge {

/// What CPU test kernels (kvm-unit-tests) expect of a machine made for them:
///   ports 0xe0-0xe3: 32 bits that read back what was written, in parts of any size; 0xe8: the same for 4-byte
///   accesses; port 0xe4: a page is to be flushed from the translations (nothing to do: engines watch guest memory
///   themselves); ports 0x2000 + n: level of interrupt line n; 0xff000000: 64 KiB of memory behind device accesses.
class TestDevice {
 public:
  static constexpr std::uint16_t kEchoPort = 0xe0, kFlushPort = 0xe4, kEcho2Port = 0xe8, kLinePort = 0x2000;
  static constexpr std::uint64_t kWindowBase = 0xff000000, kWindowBytes = 0x10000;

  /// `lines`: interrupt lines by number; null entries are not connected.
  explicit TestDevice(std::vector<InterruptLine*> lines);
  /// Puts everything on the buses. Errors: alreadyExists.
  Status plug(IoBus& ports, IoBus& memory);

 private:
  /// Bytes that read back what was written. Accesses from several vCPUs race as they would on memory.
  class Bytes : public IoDevice {
   public:
    explicit Bytes(std::size_t size) : bytes_(size) {}
    std::uint64_t read(std::uint64_t offset, unsigned size) override;
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;

   private:
    std::vector<std::atomic<std::uint8_t>> bytes_;
  };
  class Lines : public IoDevice {
   public:
    explicit Lines(std::vector<InterruptLine*> lines) : lines_(std::move(lines)) {}
    std::uint64_t read(std::uint64_t, unsigned) override { return 0; }
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
    std::size_t count() const { return lines_.size(); }

   private:
    std::vector<InterruptLine*> lines_;
  };

  Bytes echo_{4}, flush_{4}, echo2_{4};
  Lines lines_;
  Bytes window_{kWindowBytes};
};

}  // namespace lodge
