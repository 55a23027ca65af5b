// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "device/pci.h"
#include "memory/guest_memory.h"
#include "memory/io_bus.h"

namespace lodge {

/// A host bridge with Intel's PAM registers, which say for each part of [768 KiB, 1 MiB) whether reads and writes go to
/// RAM or to the firmware's ROM, and an SMRAM register. [640 KiB, 768 KiB) belongs to the display but while SMRAM there
/// is open. Goes to 0.0 of a PciHost.
class PamBridge : public PciFunction {
 public:
  struct Registers {
    unsigned pam0;  ///< the first of seven
    unsigned smram;
    bool opensSmram;  ///< whether this class sees to the SMRAM register: open, [640 KiB, 768 KiB) is RAM
  };
  /// The firmware's image lies in `memory` at romOffset(); its last 128 KiB (or all of it, if it is smaller) are what
  /// is read below 1 MiB. `romBytes`: a multiple of 4 KiB.
  PamBridge(const PciIdentity& identity, std::string name, Registers registers, GuestMemory& memory,
            std::uint64_t romBytes);

  /// What answers at [kShadowBase, 1 MiB) where memory does not: writes to RAM of which ROM is read.
  IoDevice& shadow() { return shadow_; }
  static constexpr std::uint64_t kShadowBase = 0xc0000, kShadowBytes = 0x40000;

  void reset() override;
  void transfer(state::Archive& a) override;

 protected:
  void configWritten(unsigned offset, unsigned size) override;
  GuestMemory& memory() { return memory_; }

 private:
  struct Shadow : IoDevice {
    explicit Shadow(PamBridge& o) : owner(o) {}
    std::uint64_t read(std::uint64_t, unsigned) override { return ~std::uint64_t{0}; }
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override {
      owner.writeShadow(offset, size, value);
    }
    PamBridge& owner;
  };
  void applyPam();
  void smramWritten();
  /// Bits of the PAM nibble (82441FX data sheet 3.2.19) for the 16 KiB at `kShadowBase` + 16 KiB * `part`; part 12 and
  /// on: all of [960 KiB, 1 MiB).
  unsigned pam(unsigned part);
  void writeShadow(std::uint64_t offset, unsigned size, std::uint64_t value);

  Registers registers_;
  std::uint8_t lockedSmram_ = 0;  ///< what the SMRAM register is kept at from its lock on; 0: it is not locked
  GuestMemory& memory_;
  std::uint64_t romBytes_;
  Shadow shadow_{*this};
};

}  // namespace lodge
