// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include "device/i8042.h"
#include "display/screen.h"
#include "display/vga.h"
#include "virtio/gpu.h"

namespace lodge {

/// The pc board's screen, keyboard and mouse. I/O thread.
class PcDisplay : public Display {
 public:
  /// An absolute pointer: position (0 to 0x7fff), buttons as of Display::pointer(), wheel (up positive). False: the
  /// guest does not use it.
  using Tablet = std::function<bool(std::uint32_t x, std::uint32_t y, unsigned buttons, int wheel)>;

  PcDisplay(Vga& vga, I8042& input) : vga_(vga), input_(input) {}
  /// What pointer events go to before the mouse.
  void setTablet(Tablet tablet) { tablet_ = std::move(tablet); }

  /// Called before each look at the VGA's memory: an engine whose guests store there unseen tells of the stores then.
  void setBeforeLook(std::function<void()> beforeLook) { beforeLook_ = std::move(beforeLook); }

  /// A second graphics device, which has the screen while its driver shows something.
  void setGpu(virtio::GpuDevice* gpu) { gpu_ = gpu; }

  bool refresh() override;
  const Screen& screen() const override { return screen_; }
  void key(std::uint32_t keysym, bool down) override;
  void pointer(unsigned x, unsigned y, unsigned buttons) override;
  const Cursor* cursor() const override { return onGpu_ ? &cursor_ : nullptr; }
  SizeAnswer requestSize(unsigned width, unsigned height) override;

 private:
  Vga& vga_;
  I8042& input_;
  Tablet tablet_;
  std::function<void()> beforeLook_;
  virtio::GpuDevice* gpu_ = nullptr;
  bool onGpu_ = false;
  bool takeCursor();

  Screen screen_;
  Cursor cursor_;
  int x_ = 0, y_ = 0;
  unsigned buttons_ = 0;
};

}  // namespace lodge
