// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <memory>

#include "device/pci.h"
#include "state/archive.h"
#include "storage/ide_channel.h"

namespace lodge {

/// The PIIX3's IDE function (Intel 82371SB data sheet): two channels at the addresses of old with IRQs 14 and 15, bus
/// master registers in BAR 4. Goes to the ISA bridge's slot, function 1.
class IdeController : public PciFunction, private IoDevice {
 public:
  IdeController(GuestMemory& memory, InterruptLine& irq14, InterruptLine& irq15);

  /// `number` 0 or 1.
  IdeChannel& channel(unsigned number) { return *channels_.at(number); }
  /// The channels' ports. Errors: alreadyExists.
  Status plugPorts(IoBus& ports);
  void reset() override;
  int quiesce();
  bool isQuiet();
  void transfer(state::Archive& a) override;

 private:
  std::uint64_t read(std::uint64_t offset, unsigned size) override;
  void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;

  std::array<std::unique_ptr<IdeChannel>, 2> channels_;
};

}  // namespace lodge
