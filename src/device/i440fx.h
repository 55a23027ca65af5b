// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "device/pam_bridge.h"

namespace lodge {

/// The host bridge of the `pc` board (Intel 82441FX data sheet, 290549), as far as firmware uses it: PAM, and SMRAM
/// at 640 KiB, which is there while it is open: this board's CPUs have no system management mode.
class I440Fx : public PamBridge {
 public:
  // The subsystem is how firmware made for virtual machines knows that it is in one.
  I440Fx(GuestMemory& memory, std::uint64_t romBytes)
      : PamBridge({.vendor = 0x8086,
                   .device = 0x1237,
                   .revision = 2,
                   .classCode = 0x060000,
                   .subsystemVendor = 0x1af4,
                   .subsystem = 0x1100},
                  "i440FX host bridge", {.pam0 = 0x59, .smram = 0x72, .opensSmram = true}, memory, romBytes) {}
};

}  // namespace lodge
