// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "memory/guest_memory.h"

namespace lodge {

/// The gate in address line 20 of a PC: closed, CPUs see bit 20 of every physical address as 0, as an 8086 wraps at
/// 1 MiB. Open at power-on and reset, since the reset vector has the bit. Ports 0x92 and the keyboard controller's
/// output port turn the same gate; who wrote last wins. Any thread.
class A20Gate {
 public:
  explicit A20Gate(GuestMemory& memory) : memory_(memory) {}
  bool open() const { return memory_.cpuAddressMask() == ~std::uint64_t{0}; }
  /// CPUs go by it before their next instruction at the latest, the calling one included.
  void set(bool open) {
    if (open == this->open()) return;
    constexpr std::uint64_t kLine20 = 1 << 20;
    memory_.setCpuAddressMask(open ? ~std::uint64_t{0} : ~kLine20);
    memory_.mapChanged();
  }

 private:
  GuestMemory& memory_;
};

}  // namespace lodge
