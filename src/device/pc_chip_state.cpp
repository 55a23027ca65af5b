// SPDX-License-Identifier: Apache-2.0
// How the chips that only the pc boards have are saved and loaded.
#include "device/chip_state.h"
#include "device/dma_controller.h"
#include "device/i8042.h"
#include "device/ich9_lpc.h"
#include "device/pam_bridge.h"
#include "device/parallel_flash.h"
#include "device/piix3.h"
#include "device/piix4_pm.h"
#include "device/ps2_keyboard.h"
#include "device/ps2_mouse.h"
#include "device/q35_mch.h"

namespace lodge {

using state::Archive;

void PamBridge::transfer(Archive& a) {
  PciFunction::transfer(a);
  a(lockedSmram_);
  if (a.mayApply()) applyPam();
}

void Q35Mch::transfer(Archive& a) {
  PamBridge::transfer(a);
  a(locked_, smramKept_, tsegKept_);
  if (!a.mayApply()) return;
  placePciExpress();
  placeSmram();
}

// What asks for interrupts says so itself.
void Piix3::transfer(Archive& a) {
  PciFunction::transfer(a);
  if (a.mayApply()) loadRoutes();
}

void Ich9Lpc::transfer(Archive& a) {
  Piix3::transfer(a);
  a(smiLocked_);
  if (a.mayApply()) pm_.lockSmi(smiLocked_);
}

void Piix4Pm::transfer(Archive& a) {
  PciFunction::transfer(a);
  a(apm_.bytes[0], apm_.bytes[1]);
  if (a.mayApply()) place();
}

void DmaController::transfer(Archive& a) {
  std::lock_guard lock(mutex_);
  for (Chip& chip : chips_) {
    for (Channel& c : chip.channels) a(c.baseAddress, c.baseCount, c.address, c.count, c.mode, c.page);
    a(chip.command, chip.status, chip.masks, chip.high);
  }
  a(pages_.values);
}

void ParallelFlash::transfer(Archive& a) {
  std::lock_guard lock(mutex_);
  State s = state_;
  a(s.reads, s.expects, s.status, s.bufferStart, s.bufferLeft);
  s.buffer.resize(a.count(s.buffer.size(), kBufferBytes, "a flash chip's buffer"));
  for (auto& [offset, value] : s.buffer) {
    a(offset, value);
    a.require(offset < setup_.bytes, "a flash chip's buffer");
  }
  a.require(s.reads <= State::Reads::query && s.expects <= State::Expects::lock, "what a flash chip does");
  a.require(s.bufferStart < setup_.bytes && s.bufferLeft <= kBufferBytes, "a flash chip's buffer");
  if (!a.mayApply()) return;
  state_ = std::move(s);
  placeLocked();
}

void Ps2Keyboard::transfer(Archive& a) {
  out_.transfer(a);
  a(pending_, set_, scanning_);
  a.require(set_ >= 1 && set_ <= 3, "a keyboard's scan codes");
}

void Ps2Mouse::transfer(Archive& a) {
  out_.transfer(a);
  a(pending_, resolution_, rate_, buttons_, knock_, reporting_, remote_, doubled_, wheelMouse_, dx_, dy_, wheel_);
  constexpr int kMost = 1 << 24;
  auto small = [](int value) { return value > -kMost && value < kMost; };
  a.require(resolution_ <= 3 && knock_ <= 3 && small(dx_) && small(dy_) && small(wheel_), "a mouse's state");
  if (a.loading() && !a.ok()) reset();
}

void I8042::transfer(Archive& a) {
  transferChip(a, *this);
  std::lock_guard lock(mutex_);
  bool devices = keyboard_ != nullptr;
  a(devices);
  a.require(devices == (keyboard_ != nullptr), "a keyboard that is not there");
  if (!keyboard_ || !a.ok()) return;
  keyboard_->transfer(a);
  mouse_->transfer(a);
}

}  // namespace lodge
