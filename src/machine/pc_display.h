// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "device/i8042.h"
#include "display/screen.h"
#include "display/vga.h"

namespace lodge {

/// The pc board's screen, keyboard and mouse. I/O thread.
class PcDisplay : public Display {
 public:
  PcDisplay(Vga& vga, I8042& input) : vga_(vga), input_(input) {}

  bool refresh() override { return vga_.draw(screen_); }
  const Screen& screen() const override { return screen_; }
  void key(std::uint32_t keysym, bool down) override;
  void pointer(unsigned x, unsigned y, unsigned buttons) override;

 private:
  Vga& vga_;
  I8042& input_;
  Screen screen_;
  int x_ = 0, y_ = 0;
  unsigned buttons_ = 0;
};

}  // namespace lodge
