// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "device/pam_bridge.h"

namespace lodge {

/// The host bridge of the `q35` board (Intel 3 Series chipset data sheet, 316966, chapter 5), as far as firmware uses
/// it: PAM, where PCI Express configuration space lies (PCIEXBAR), and system management RAM at the top of memory below
/// 4 GiB (TSEG), which only CPUs in system management mode reach once it is closed. The space at 0xa0000 is the
/// display's alone. TSEG may be 16 MiB, too, as the Q35 that QEMU made known has it: register 0x50 says so.
class Q35Mch : public PamBridge {
 public:
  /// Configuration space of that many buses begins there from now on, or is nowhere; on the writing vCPU's thread.
  using PlacePciExpress = std::function<void(std::optional<std::uint64_t> base, unsigned buses)>;
  /// Without `smm` there is no TSEG.
  Q35Mch(GuestMemory& memory, std::uint64_t romBytes, bool smm, PlacePciExpress onPciExpress);

  void reset() override;
  void transfer(state::Archive& a) override;

 private:
  void configWritten(unsigned offset, unsigned size) override;
  void loadResetValues();
  void placePciExpress();
  void placeSmram();
  bool locked() { return locked_; }

  bool smm_, locked_ = false;
  std::uint8_t smramKept_ = 0, tsegKept_ = 0;  ///< of the locked registers
  PlacePciExpress onPciExpress_;
};

}  // namespace lodge
