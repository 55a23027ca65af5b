// SPDX-License-Identifier: Apache-2.0
// How a GPU is saved and loaded: between requests, with the pixels that the driver has transferred.
#include "virtio/gpu.h"

namespace lodge::virtio {

using state::Archive;

void GpuDevice::transferResourceLocked(Archive& a, Resource& resource) {
  a(resource.width, resource.height, resource.format);
  bool sane = resource.width != 0 && resource.height != 0 && resource.width <= kMaxSide &&
              resource.height <= kMaxSide && knowsFormat(resource.format);
  std::uint64_t pixels = sane ? std::uint64_t{resource.width} * resource.height : 0;
  if (a.loading()) {
    a.require(sane && hostBytes_ + 4 * pixels <= kMaxHostBytes, "a GPU's resource");
    if (!a.ok()) return;
    hostBytes_ += 4 * pixels;
    resource.pixels.resize(pixels);
  }
  a.bytes(std::as_writable_bytes(std::span(resource.pixels)));
  std::size_t ranges = a.count(resource.backing.size(), kMaxRanges, "the ranges of a GPU's resource");
  if (a.loading()) resource.backing.resize(ranges);
  for (Range& range : resource.backing) a(range.address, range.length);
}

void GpuDevice::transfer(Archive& a) {
  QueuedDevice::transfer(a);
  std::lock_guard lock(mutex_);
  std::uint32_t width = width_, height = height_;
  a(width, height, events_);
  auto fits = [](std::uint32_t side) { return side >= kMinSide && side <= kMaxSide; };
  a.require(fits(width) && fits(height), "a GPU's display");
  std::size_t count = a.count(resources_.size(), kMaxRanges, "the number of a GPU's resources");
  if (a.loading()) {
    resources_.clear();
    hostBytes_ = 0;
    for (std::size_t n = 0; n < count && a.ok(); ++n) {
      std::uint32_t id = 0;
      a(id);
      a.require(id != 0 && !findLocked(id), "the number of a GPU's resource");
      if (a.ok()) transferResourceLocked(a, resources_[id]);
    }
  } else {
    for (auto& [id, resource] : resources_) {
      std::uint32_t number = id;
      a(number);
      transferResourceLocked(a, resource);
    }
  }
  a(shown_, scanout_.x, scanout_.y, scanout_.width, scanout_.height);
  a(cursor_.resource, cursor_.x, cursor_.y, cursor_.hotX, cursor_.hotY);
  if (!a.loading()) return;
  const Resource* shown = findLocked(shown_);
  bool drawable = shown && scanout_.width != 0 && scanout_.height != 0 && shown->contains(scanout_);
  a.require(shown_ == 0 || drawable, "a GPU's scanout");
  a.require(cursor_.resource == 0 || findLocked(cursor_.resource), "a GPU's cursor");
  a.require(cursor_.hotX <= kCursorSide && cursor_.hotY <= kCursorSide, "a GPU's hot spot");
  if (a.ok()) {
    width_ = width;
    height_ = height;
  } else {
    resources_.clear();
    hostBytes_ = shown_ = 0;
    cursor_ = {};
  }
  changed_ = pointerChanged_ = true;
}

}  // namespace lodge::virtio
