// SPDX-License-Identifier: Apache-2.0
#include "machine/pc_display.h"

#include <algorithm>
#include <utility>

#include "display/keyboard_map.h"

namespace lodge {

void PcDisplay::key(std::uint32_t keysym, bool down) {
  if (unsigned code = scanCodeOf(keysym)) input_.key(code, down);
}

bool PcDisplay::refresh() {
  bool onGpu = gpu_ && gpu_->active();
  if (onGpu != onGpu_) {
    onGpu_ = onGpu;
    if (onGpu) {
      gpu_->redraw();
    } else {
      vga_.redraw();
    }
  }
  if (!onGpu) {
    if (beforeLook_) beforeLook_();
    return vga_.draw(screen_);
  }
  bool moved = takeCursor();
  return gpu_->draw({screen_.pixels, screen_.width, screen_.height}) || moved;
}

bool PcDisplay::takeCursor() {
  auto pointer = gpu_->takePointer();
  if (!pointer) return false;
  cursor_.x = pointer->x;
  cursor_.y = pointer->y;
  cursor_.shape = {pointer->width, pointer->height, pointer->hotX, pointer->hotY, std::move(pointer->pixels)};
  return true;
}

// Only while the GPU's driver has the screen: what else draws on it keeps the size that it set.
Display::SizeAnswer PcDisplay::requestSize(unsigned width, unsigned height) {
  using Gpu = virtio::GpuDevice;
  if (!gpu_ || !gpu_->active()) return SizeAnswer::never;
  unsigned smaller = std::min(width, height), larger = std::max(width, height);
  if (smaller < Gpu::kMinSide || larger > Gpu::kMaxSide) return SizeAnswer::tooLarge;
  gpu_->requestSize(width, height);
  return SizeAnswer::asked;
}

void PcDisplay::pointer(unsigned x, unsigned y, unsigned buttons) {
  constexpr unsigned kWheelUp = 8, kWheelDown = 16;
  int newX = static_cast<int>(x), newY = static_cast<int>(y);
  unsigned pressed = buttons & ~buttons_;
  int wheel = ((pressed & kWheelDown) != 0 ? 1 : 0) - ((pressed & kWheelUp) != 0 ? 1 : 0);
  buttons_ = buttons;
  constexpr std::uint32_t kTabletRange = 0x7fff;
  auto scaled = [](unsigned at, unsigned size) {
    return size < 2 ? 0 : std::min(at, size - 1) * kTabletRange / (size - 1);
  };
  if (tablet_ && tablet_(scaled(x, screen_.width), scaled(y, screen_.height), buttons & 7, -wheel)) {
    x_ = newX;
    y_ = newY;
    return;
  }
  // The PS/2 mouse has its middle button in bit 2, its right one in bit 1.
  unsigned mouse = (buttons & 1) | (buttons & 2) << 1 | (buttons & 4) >> 1;
  input_.mouse(newX - x_, newY - y_, wheel, mouse);
  x_ = newX;
  y_ = newY;
}

}  // namespace lodge
