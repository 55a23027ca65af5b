// SPDX-License-Identifier: Apache-2.0
// How the VGA is saved and loaded; its memory is part of the machine's.
#include <mutex>

#include "display/vga.h"
#include "display/vga_modes.h"

namespace lodge {

namespace {

/// What Vga::writeDispiLocked() lets be.
bool isDispiValid(const std::array<std::uint16_t, 16>& d) {
  unsigned bits = d[dispi::bitsPerPixel];
  bool known = bits == 0 || bits == 4 || bits == 8 || bits == 15 || bits == 16 || bits == 24 || bits == 32;
  if (!known || d[dispi::width] > Vga::kMaxWidth || d[dispi::height] > Vga::kMaxHeight || d[dispi::width] % 8 != 0 ||
      d[dispi::bank] > 0xff || d[dispi::virtualWidth] > 0x4000)
    return false;
  if ((d[dispi::enable] & dispi::kEnabled) == 0) return true;
  if (d[dispi::width] == 0 || d[dispi::height] == 0 || bits == 0 || d[dispi::virtualWidth] == 0) return false;
  Pitch pitch(d[dispi::virtualWidth], static_cast<std::uint16_t>(bits));
  return pitch.bytes != 0;
}

}  // namespace

void Vga::transfer(state::Archive& a) {
  PciFunction::transfer(a);
  std::lock_guard lock(mutex_);
  Registers r = regs_;
  a(r.misc, r.feature, r.sequencerIndex, r.graphicsIndex, r.attributeIndex, r.crtcIndex, r.dacMask, r.dacRead,
    r.dacWrite, r.dacPart, r.dacState, r.attributeData, r.retrace, r.sequencer, r.graphics, r.attribute, r.crtc,
    r.palette, r.dispiIndex, r.dispi, r.latch);
  a.require(r.dacPart <= 2, "the VGA's palette");
  a.require(isDispiValid(r.dispi), "the VGA's mode");
  if (!a.mayApply()) return;
  regs_ = r;
  changed_ = true;
}

}  // namespace lodge
