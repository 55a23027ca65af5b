// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "virtio/queue_set.h"

namespace lodge::virtio {

/// A GPU without 3D (5.7): one scanout that shows a rectangle of a resource, and a cursor. Pixels come from guest
/// memory when the driver transfers them, so that nothing is looked at while nothing changes.
class GpuDevice : public QueuedDevice {
 public:
  static constexpr std::uint32_t kMinSide = 64, kMaxSide = 4096;
  static constexpr std::uint64_t kEdid = 1 << 1;             ///< VIRTIO_GPU_F_EDID
  static constexpr std::uint64_t kMaxHostBytes = 128 << 20;  ///< all resources together

  /// `width` and `height`: kMinSide to kMaxSide.
  GpuDevice(GuestMemory& memory, std::uint32_t width, std::uint32_t height)
      : QueuedDevice(memory, 2), memory_(memory), width_(width), height_(height) {}
  DeviceType type() const override { return DeviceType::gpu; }
  std::uint64_t features() const override { return kEdid; }
  std::uint32_t readConfig(std::uint64_t offset, unsigned size) override;
  void writeConfig(std::uint64_t offset, unsigned size, std::uint32_t value) override;
  void reset() override;
  void notify(unsigned queue) override;
  void transfer(state::Archive& a) override;

  /// The driver shows something. Any thread.
  bool active() const;
  /// A picture: `width` * `height` pixels, each 0x00rrggbb.
  struct Target {
    std::vector<std::uint32_t>& pixels;
    std::uint32_t &width, &height;
  };
  /// Draws what is shown, with its size. False: nothing changed, or nothing is shown; `target` was left alone. Any
  /// thread.
  bool draw(Target target);
  /// The next draw() draws.
  void redraw();

  /// The driver's pointer.
  struct Pointer {
    std::uint32_t width, height, hotX, hotY;  ///< 0 by 0: hidden; else 64 by 64 at most, the hot spot inside
    std::int32_t x, y;                        ///< the upper left corner's place on the scanout
    std::vector<std::uint32_t> pixels;        ///< 0xaarrggbb
  };
  /// Nothing: it is as at the last call. Any thread.
  std::optional<Pointer> takePointer();

  /// Tells the driver that its display would like to have this size, kMinSide to kMaxSide. Any thread.
  void requestSize(std::uint32_t width, std::uint32_t height);

 private:
  static constexpr std::uint32_t kMaxRanges = 16384;  ///< also of resources
  static constexpr std::uint32_t kCursorSide = 64;

  struct Rectangle {
    std::uint32_t x, y, width, height;
  };
  struct Header {
    std::uint32_t type, flags;
    std::uint64_t fence;
    std::uint32_t context, ring;
  };
  static_assert(sizeof(Header) == 24);
  struct Range {
    std::uint64_t address, length;
  };
  struct Resource {
    std::uint32_t width, height;
    std::uint32_t format;
    std::vector<std::uint32_t> pixels;  ///< as the guest has them
    std::vector<Range> backing;
    bool contains(const Rectangle& r) const {
      return r.width <= width && r.height <= height && r.x <= width - r.width && r.y <= height - r.height;
    }
  };
  struct Cursor {
    std::uint32_t resource = 0, x = 0, y = 0, hotX = 0, hotY = 0;
  };

  std::uint32_t runLocked(const Header& header, Chain& chain, std::vector<std::uint8_t>& answer);
  std::uint32_t createLocked(Chain& chain);
  std::uint32_t unrefLocked(Chain& chain);
  std::uint32_t setScanoutLocked(Chain& chain);
  std::uint32_t flushLocked(Chain& chain);
  std::uint32_t transferLocked(Chain& chain);
  std::uint32_t attachLocked(Chain& chain);
  std::uint32_t cursorLocked(Chain& chain, bool shape);
  bool readBackingLocked(const Resource& resource, std::uint64_t offset, std::span<std::byte> to) const;
  std::uint32_t edidLocked(Chain& chain, std::vector<std::uint8_t>& answer) const;
  Resource* findLocked(std::uint32_t id);
  void transferResourceLocked(state::Archive& a, Resource& resource);
  static bool knowsFormat(std::uint32_t format);

  GuestMemory& memory_;
  mutable std::mutex mutex_;
  std::uint32_t width_, height_;  ///< the display's; what is shown is scanout_
  std::uint32_t events_ = 0;      ///< events_read of the configuration
  std::map<std::uint32_t, Resource> resources_;
  std::uint64_t hostBytes_ = 0;
  std::uint32_t shown_ = 0;  ///< the scanout's resource; 0: none
  Rectangle scanout_{};
  Cursor cursor_;
  bool changed_ = false, pointerChanged_ = false;
};

}  // namespace lodge::virtio
