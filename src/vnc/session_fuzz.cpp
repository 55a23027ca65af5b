// SPDX-License-Identifier: Apache-2.0
// A hostile VNC client: any bytes, in pieces, while the screen changes its content and size.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "vnc/session.h"

namespace {
using namespace lodge;
struct FakeDisplay : Display {
  bool refresh() override { return true; }
  const Screen& screen() const override { return picture; }
  void key(std::uint32_t, bool) override {}
  void pointer(unsigned x, unsigned y, unsigned) override {
    if (x > 4096 || y > 4096) __builtin_trap();
  }
  const Cursor* cursor() const override { return arrow.shape.width == 3 ? &arrow : nullptr; }
  SizeAnswer requestSize(unsigned width, unsigned height) override {
    if (width == 0 || height == 0) __builtin_trap();
    return width < 100 ? SizeAnswer::asked : SizeAnswer::never;
  }
  Screen picture;
  Cursor arrow;
};
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  FakeDisplay display;
  display.picture.resize(70, 65);
  static auto tls = *vnc::TlsContext::create("", "");
  vnc::Session session(display, "fuzz", (data[0] & 1) != 0 ? "secret" : "", {}, (data[0] & 4) != 0 ? tls : nullptr);
  if ((data[0] & 2) != 0) session.receive("RFB 003.008\n\x01\x01");
  std::uint64_t generation = 1;
  for (std::size_t at = 1; at < size;) {
    std::size_t count = std::min<std::size_t>(size - at, 1u + data[at] % 61);
    if (!session.receive({reinterpret_cast<const char*>(data) + at, count})) break;
    at += count;
    if (count % 3 == 0) display.picture.pixels[count] ^= 0x10203 * count;
    if (count % 13 == 0) display.picture.resize(1 + static_cast<unsigned>(count) * 3, 66);
    if (count % 11 == 0) display.arrow = {static_cast<int>(count) - 5, 3, {3, 1, 0, 0, {0x80000000, 5, 0xff00ff00}}};
    if (count % 17 == 0) display.arrow.shape = {};
    if (count % 19 == 0) display.clipboard().set(std::string(count, '\n'));
    session.offerClipboard();
    session.update(++generation);
    session.output().clear();
  }
  return 0;
}
