// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <mutex>

#include "device/apic.h"
#include "device/interrupt.h"
#include "device/io_window.h"
#include "x86/chip_registers.h"

namespace lodge {

/// The two 8259A interrupt controllers of a PC (Intel 8259A data sheet), the second at IR2 of the first, with the
/// edge/level control registers of the chipsets that followed. Their INTR output goes to LINT0 of the CPUs (virtual
/// wire mode). Ports: master 0x20-0x21, slave 0xa0-0xa1, ELCR 0x4d0-0x4d1. Any thread.
class Pic : public ExtIntSource {
 public:
  explicit Pic(InterruptLine& output);

  IoDevice& master() { return masterPorts_; }
  IoDevice& slave() { return slavePorts_; }
  IoDevice& elcr() { return elcrPorts_; }
  /// `irq` 0..15; 2 is the cascade and ignored.
  InterruptLine& line(unsigned irq) { return lines_.at(irq); }
  /// The two INTA cycles: a vector in any case, of a spurious IRQ 7 if the request has gone.
  std::uint8_t acknowledgeInterrupt() override;
  void reset();

  using Chip = x86::PicRegisters;
  using State = std::array<Chip, 2>;
  State save() const;
  void restore(const State& state);
  /// An engine gets the state, and until restore() nothing comes of this one.
  State surrender();

 private:
  struct Line : InterruptLine {
    void set(bool level) override { owner->setLine(irq, level); }
    bool waits() const override { return owner->waits(irq); }
    Pic* owner = nullptr;
    unsigned irq = 0;
  };
  std::uint8_t readMaster(unsigned offset) { return readPort(0, offset); }
  void writeMaster(unsigned offset, std::uint8_t value) { writePort(0, offset, value); }
  std::uint8_t readSlave(unsigned offset) { return readPort(1, offset); }
  void writeSlave(unsigned offset, std::uint8_t value) { writePort(1, offset, value); }
  std::uint8_t readElcr(unsigned chip);
  void writeElcr(unsigned chip, std::uint8_t value);
  std::uint8_t readPort(unsigned chip, unsigned offset);
  void writePort(unsigned chip, unsigned offset, std::uint8_t value);
  void writeDataLocked(unsigned chip, std::uint8_t value);
  void setLine(unsigned irq, bool level);
  bool waits(unsigned irq) const;
  /// The request that a chip would signal now; -1 for none.
  int requestLocked(unsigned chip) const;
  std::uint8_t acknowledgeChipLocked(unsigned chip);
  void updateLocked();

  InterruptLine& output_;
  bool outputLevel_ = false;
  std::array<Line, 16> lines_;
  ByteWindow<Pic, &Pic::readMaster, &Pic::writeMaster> masterPorts_{*this};
  ByteWindow<Pic, &Pic::readSlave, &Pic::writeSlave> slavePorts_{*this};
  ByteWindow<Pic, &Pic::readElcr, &Pic::writeElcr> elcrPorts_{*this};
  mutable std::mutex mutex_;
  State chips_{};
};

}  // namespace lodge
