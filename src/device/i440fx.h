// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "device/pci.h"
#include "memory/guest_memory.h"
#include "memory/io_bus.h"

namespace lodge {

/// The host bridge of the `pc` board (Intel 82441FX data sheet, 290549), as far as firmware uses it: the PAM registers,
/// which say for each part of [768 KiB, 1 MiB) whether reads and writes go to RAM or to the firmware's ROM, and the
/// SMRAM register, which is kept. [640 KiB, 768 KiB) belongs to the display. Goes to 0.0 of a PciHost.
class I440Fx : public PciFunction {
 public:
  /// The firmware's image lies in `memory` at romOffset(); its last 128 KiB (or all of it, if it is smaller) are what
  /// is read below 1 MiB. `romBytes`: a multiple of 4 KiB.
  I440Fx(GuestMemory& memory, std::uint64_t romBytes);

  /// What answers at [kShadowBase, 1 MiB) where memory does not: writes to RAM of which ROM is read.
  IoDevice& shadow() { return shadow_; }
  static constexpr std::uint64_t kShadowBase = 0xc0000, kShadowBytes = 0x40000;

  void reset() override;

 private:
  struct Shadow : IoDevice {
    explicit Shadow(I440Fx& o) : owner(o) {}
    std::uint64_t read(std::uint64_t, unsigned) override { return ~std::uint64_t{0}; }
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override {
      owner.writeShadow(offset, size, value);
    }
    I440Fx& owner;
  };
  void configWritten(unsigned offset, unsigned size) override;
  void applyPam();
  /// Bits of the PAM nibble (data sheet 3.2.19) for the 16 KiB at `kShadowBase` + 16 KiB * `part`; part 12 and on: all
  /// of [960 KiB, 1 MiB).
  unsigned pam(unsigned part);
  void writeShadow(std::uint64_t offset, unsigned size, std::uint64_t value);

  GuestMemory& memory_;
  std::uint64_t romBytes_;
  Shadow shadow_{*this};
};

}  // namespace lodge
