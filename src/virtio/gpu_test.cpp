// SPDX-License-Identifier: Apache-2.0
#include "virtio/gpu.h"

#include <gtest/gtest.h>

#include <utility>

#include "virtio/driver_kit.h"

namespace lodge::virtio {
namespace {

using testing::CountingTransport;
using testing::DriverQueue;

class Gpu : public ::testing::Test {
 protected:
  static constexpr std::uint64_t kRequest = 0x8000, kAnswer = 0x9000, kPixels = 0x20000;
  Gpu() {
    device_.attach(transport_);
    bool accepted = false;
    device_.enableQueue(0, control_.setup(), accepted);
    device_.enableQueue(1, cursors_.setup(), accepted);
    device_.activate(0);
  }
  /// Sends a request; returns the response's type.
  std::uint32_t send(std::uint32_t type, const std::vector<std::uint32_t>& body, unsigned queue = 0) {
    DriverQueue& q = queue == 0 ? control_ : cursors_;
    q.put(kRequest, type);
    q.put(kRequest + 4, std::uint32_t{1});
    q.put(kRequest + 8, std::uint64_t{77});
    q.put(kRequest + 16, std::uint64_t{0});
    for (std::size_t n = 0; n < body.size(); ++n) q.put(kRequest + 24 + 4 * n, body[n]);
    q.add({{kRequest, static_cast<std::uint32_t>(24 + 4 * body.size()), false}, {kAnswer, 2048, true}});
    device_.notify(queue);
    auto used = q.take();
    EXPECT_TRUE(used);
    EXPECT_EQ(q.get<std::uint64_t>(kAnswer + 8), 77u) << "its fence";
    return q.get<std::uint32_t>(kAnswer);
  }
  void show(std::uint32_t format = 2) {
    EXPECT_EQ(send(0x101, {1, format, 8, 4}), 0x1100u);
    EXPECT_EQ(send(0x106, {1, 2, kPixels, 0, 64, 0, kPixels + 0x1000, 0, 64, 0}), 0x1100u);
    for (unsigned n = 0; n < 16; ++n) {
      control_.put(kPixels + 4 * n, 0xff102030u + n);
      control_.put(kPixels + 0x1000 + 4 * n, 0xff405060u + n);
    }
    EXPECT_EQ(send(0x105, {0, 0, 8, 4, 0, 0, 1, 0}), 0x1100u);
    EXPECT_EQ(send(0x103, {0, 0, 8, 4, 0, 1}), 0x1100u);
  }
  bool draw() { return device_.draw({pixels_, width_, height_}); }

  std::unique_ptr<GuestMemory> memory_ = std::move(*GuestMemory::create(1_MiB));
  DriverQueue control_{*memory_, 0x1000, false}, cursors_{*memory_, 0x3000, false};
  CountingTransport transport_;
  GpuDevice device_{*memory_, 1024, 768};
  std::vector<std::uint32_t> pixels_;
  std::uint32_t width_ = 0, height_ = 0;
};

TEST_F(Gpu, TellsItsDisplay) {
  EXPECT_EQ(device_.readConfig(8, 4), 1u);
  EXPECT_EQ(send(0x100, {}), 0x1101u);
  EXPECT_EQ(control_.get<std::uint32_t>(kAnswer + 32), 1024u);
  EXPECT_EQ(control_.get<std::uint32_t>(kAnswer + 36), 768u);
  EXPECT_EQ(control_.get<std::uint32_t>(kAnswer + 40), 1u);
  EXPECT_EQ(control_.get<std::uint32_t>(kAnswer + 64), 0u);
}

TEST_F(Gpu, ShowsWhatWasTransferred) {
  EXPECT_FALSE(device_.active());
  EXPECT_FALSE(draw());
  show();
  EXPECT_TRUE(device_.active());
  ASSERT_TRUE(draw());
  EXPECT_EQ(width_, 8u);
  EXPECT_EQ(height_, 4u);
  EXPECT_EQ(pixels_[1], 0x102031u);
  EXPECT_EQ(pixels_[16], 0x405060u);
  EXPECT_FALSE(draw()) << "nothing new";
  control_.put(kPixels + 4, 0x00aabbccu);
  EXPECT_EQ(send(0x104, {0, 0, 8, 4, 1, 0}), 0x1100u);
  ASSERT_TRUE(draw());
  EXPECT_EQ(pixels_[1], 0x102031u) << "not transferred yet";
  EXPECT_EQ(send(0x105, {1, 0, 1, 1, 4, 0, 1, 0}), 0x1100u);
  EXPECT_EQ(send(0x104, {1, 0, 1, 1, 1, 0}), 0x1100u);
  ASSERT_TRUE(draw());
  EXPECT_EQ(pixels_[1], 0xaabbccu);
  EXPECT_EQ(send(0x103, {2, 1, 4, 2, 0, 1}), 0x1100u);
  ASSERT_TRUE(draw());
  EXPECT_EQ(width_, 4u);
  EXPECT_EQ(pixels_[0], 0x10203au);
  EXPECT_EQ(send(0x102, {1, 0}), 0x1100u);
  EXPECT_FALSE(device_.active());
}

TEST_F(Gpu, KnowsFormats) {
  for (auto [format, expected] : {std::pair{1u, 0x102030u}, {3u, 0x2010ffu & 0xffffffu}, {67u, 0x302010u}}) {
    show(format);
    ASSERT_TRUE(draw());
    EXPECT_EQ(pixels_[0], format == 3 ? 0x2010ffu : expected) << format;
    EXPECT_EQ(send(0x102, {1, 0}), 0x1100u);
  }
}

TEST_F(Gpu, HandsOutItsPointer) {
  show();
  EXPECT_FALSE(device_.takePointer());
  EXPECT_EQ(send(0x101, {2, 1, 2, 2}), 0x1100u);
  EXPECT_EQ(send(0x106, {2, 1, kPixels + 0x2000, 0, 16, 0}), 0x1100u);
  for (unsigned n = 0; n < 4; ++n) control_.put(kPixels + 0x2000 + 4 * n, n == 0 ? 0xffffffffu : 0x80000000u + n);
  EXPECT_EQ(send(0x105, {0, 0, 2, 2, 0, 0, 2, 0}), 0x1100u);
  ASSERT_TRUE(draw());
  EXPECT_EQ(send(0x300, {0, 1, 0, 0, 2, 1, 9, 0}, 1), 0x1100u);
  auto pointer = device_.takePointer();
  ASSERT_TRUE(pointer);
  EXPECT_EQ(pointer->width, 2u);
  EXPECT_EQ(pointer->x, 1);
  EXPECT_EQ(pointer->hotX, 1u);
  EXPECT_EQ(pointer->hotY, 1u) << "inside of it";
  EXPECT_EQ(pointer->pixels, (std::vector<std::uint32_t>{0xffffffff, 0x80000001, 0x80000002, 0x80000003}));
  EXPECT_FALSE(device_.takePointer());
  EXPECT_FALSE(draw()) << "the picture is the same";
  EXPECT_EQ(send(0x301, {0, 0xffffffff, 3, 0, 0, 0, 0, 0}, 1), 0x1100u);
  pointer = device_.takePointer();
  ASSERT_TRUE(pointer);
  EXPECT_EQ(pointer->x, -1);
  EXPECT_EQ(pointer->width, 2u);
  EXPECT_EQ(send(0x300, {0, 1, 1, 0, 0, 0, 0, 0}, 1), 0x1100u);
  EXPECT_EQ(device_.takePointer()->width, 0u) << "hidden";
}

TEST_F(Gpu, AsksTheDriverForAnotherSize) {
  device_.requestSize(1024, 768);
  EXPECT_EQ(transport_.configChanges, 0) << "it has that";
  device_.requestSize(1280, 720);
  EXPECT_EQ(transport_.configChanges, 1);
  EXPECT_EQ(device_.readConfig(0, 4), 1u);
  device_.writeConfig(4, 4, 1);
  EXPECT_EQ(device_.readConfig(0, 4), 0u);
  EXPECT_EQ(send(0x100, {}), 0x1101u);
  EXPECT_EQ(control_.get<std::uint32_t>(kAnswer + 32), 1280u);
  EXPECT_EQ(control_.get<std::uint32_t>(kAnswer + 36), 720u);
}

TEST_F(Gpu, HasAnEdid) {
  device_.requestSize(1600, 900);
  EXPECT_EQ(send(0x10a, {1, 0}), 0x1202u);
  EXPECT_EQ(send(0x10a, {0, 0}), 0x1104u);
  EXPECT_EQ(control_.get<std::uint32_t>(kAnswer + 24), 128u);
  unsigned sum = 0;
  for (unsigned n = 0; n < 128; ++n) sum += control_.get<std::uint8_t>(kAnswer + 32 + n);
  EXPECT_EQ(sum % 256, 0u);
  EXPECT_EQ(control_.get<std::uint64_t>(kAnswer + 32), 0x00ffffffffffff00u);
  auto field = [&](unsigned at) { return unsigned{control_.get<std::uint8_t>(kAnswer + 32 + 54 + at)}; };
  EXPECT_EQ(field(2) | (field(4) >> 4) << 8, 1600u);
  EXPECT_EQ(field(5) | (field(7) >> 4) << 8, 900u);
  EXPECT_EQ(field(0) | field(1) << 8, 1760u * 940 * 60 / 10000) << "60 Hz";
}

TEST_F(Gpu, RefusesWhatCannotBe) {
  EXPECT_EQ(send(0x101, {0, 2, 8, 4}), 0x1203u);
  EXPECT_EQ(send(0x101, {1, 99, 8, 4}), 0x1205u);
  EXPECT_EQ(send(0x101, {1, 2, 5000, 4}), 0x1205u);
  EXPECT_EQ(send(0x101, {1, 2, 4096, 4096}), 0x1100u);
  EXPECT_EQ(send(0x101, {2, 2, 4096, 4096}), 0x1100u);
  EXPECT_EQ(send(0x101, {3, 2, 1, 1}), 0x1201u);
  EXPECT_EQ(send(0x105, {0, 0, 8, 4, 0, 0, 1, 0}), 0x1200u) << "no backing";
  EXPECT_EQ(send(0x105, {0xffffffff, 0, 2, 1, 0, 0, 1, 0}), 0x1205u);
  EXPECT_EQ(send(0x103, {0, 0, 5000, 4, 0, 1}), 0x1205u);
  EXPECT_EQ(send(0x103, {0, 0, 8, 4, 1, 1}), 0x1202u);
  EXPECT_EQ(send(0x103, {0, 0, 8, 4, 0, 9}), 0x1203u);
  EXPECT_EQ(send(0x106, {1, 0x10000}), 0x1205u);
  EXPECT_EQ(send(0x200, {}), 0x1200u);
  EXPECT_EQ(send(0x102, {1, 0}), 0x1100u);
  EXPECT_EQ(send(0x101, {3, 2, 1, 1}), 0x1100u) << "there is room again";
  device_.reset();
  EXPECT_FALSE(device_.active());
}

TEST_F(Gpu, GoesOnAfterItWasSaved) {
  show();
  EXPECT_EQ(send(0x101, {2, 1, 64, 64}), 0x1100u);
  EXPECT_EQ(send(0x300, {0, 5, 6, 0, 2, 1, 2, 0}, 1), 0x1100u);
  device_.requestSize(800, 600);
  ASSERT_TRUE(draw());
  std::vector<std::uint32_t> before = pixels_;
  state::Archive out;
  device_.transfer(out);
  ASSERT_TRUE(out.finish());

  GpuDevice other(*memory_, 1024, 768);
  CountingTransport transport;
  other.attach(transport);
  bool accepted = false;
  other.enableQueue(0, control_.setup(), accepted);
  other.enableQueue(1, cursors_.setup(), accepted);
  other.activate(0);
  state::Archive in(out.saved(), 1);
  other.transfer(in);
  ASSERT_TRUE(in.finish());
  EXPECT_TRUE(other.active());
  std::vector<std::uint32_t> after;
  std::uint32_t width = 0, height = 0;
  ASSERT_TRUE(other.draw({after, width, height}));
  EXPECT_EQ(after, before);
  EXPECT_EQ(width, 8u);
  auto pointer = other.takePointer();
  ASSERT_TRUE(pointer);
  EXPECT_EQ(pointer->hotX, 1u);
  EXPECT_EQ(other.readConfig(0, 4), 1u) << "the driver has not seen the other size yet";
  // The resource still has its pages, and more of the host's memory is counted.
  EXPECT_EQ(control_.get<std::uint32_t>(kPixels), 0xff102030u);

  // Each byte less, and bytes that are not what they were, are refused or give a device that draws within its picture.
  for (std::size_t cut = 0; cut < out.saved().size(); cut += 97) {
    state::Archive shorter(std::span(out.saved()).first(cut), 1);
    other.transfer(shorter);
    EXPECT_FALSE(shorter.finish());
    EXPECT_FALSE(other.active());
  }
  std::vector<std::byte> bad = out.saved();
  for (std::size_t at = 0; at < 64 && at < bad.size(); ++at) {
    std::byte kept = std::exchange(bad[at], std::byte{0xff});
    state::Archive changed(bad, 1);
    other.transfer(changed);
    other.redraw();
    other.draw({after, width, height});
    bad[at] = kept;
  }
}

}  // namespace
}  // namespace lodge::virtio
