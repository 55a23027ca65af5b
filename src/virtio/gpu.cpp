// SPDX-License-Identifier: Apache-2.0
#include "virtio/gpu.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "virtio/edid.h"
#include "virtio/scatter.h"

namespace lodge::virtio {

namespace {
// 5.7.6.7: requests and responses.
enum Request : std::uint32_t {
  getDisplayInfo = 0x100,
  createResource2d,
  unrefResource,
  setScanout,
  flushResource,
  transferToHost2d,
  attachBacking,
  detachBacking,
  getEdid = 0x10a,
  updateCursor = 0x300,
  moveCursor,
};
enum Response : std::uint32_t {
  okNoData = 0x1100,
  okDisplayInfo = 0x1101,
  okEdid = 0x1104,
  unspecified = 0x1200,
  outOfMemory,
  invalidScanout,
  invalidResource,
  invalidContext,
  invalidParameter,
};
constexpr std::uint32_t kFence = 1, kScanouts = 16;

struct ResourceAndPad {
  std::uint32_t resource, pad;
};

/// The shifts of red, green and blue in a pixel that is read as a little-endian number; nothing: no such format.
struct Shifts {
  unsigned red, green, blue;
};
std::optional<Shifts> shiftsOf(std::uint32_t format) {
  switch (format) {
    case 1:  // B8G8R8A8
    case 2:  // B8G8R8X8
      return Shifts{16, 8, 0};
    case 3:  // A8R8G8B8
    case 4:  // X8R8G8B8
      return Shifts{8, 16, 24};
    case 67:   // R8G8B8A8
    case 134:  // R8G8B8X8
      return Shifts{0, 8, 16};
    case 68:   // X8B8G8R8
    case 121:  // A8B8G8R8
      return Shifts{24, 16, 8};
    default:
      return std::nullopt;
  }
}
std::uint32_t toRgb(std::uint32_t pixel, const Shifts& s) {
  return (pixel >> s.red & 255) << 16 | (pixel >> s.green & 255) << 8 | (pixel >> s.blue & 255);
}
unsigned alphaOf(std::uint32_t pixel, std::uint32_t format) {
  if (format == 1 || format == 67) return pixel >> 24;
  if (format == 3 || format == 121) return pixel & 255;
  return 255;
}
}  // namespace

bool GpuDevice::knowsFormat(std::uint32_t format) {
  return shiftsOf(format).has_value();
}

std::uint32_t GpuDevice::readConfig(std::uint64_t offset, unsigned size) {
  std::lock_guard lock(mutex_);
  const std::uint32_t config[4] = {events_, 0, 1, 0};  // one scanout; no capability sets
  return readConfigBytes(config, sizeof config, offset, size);
}

// events_clear: the bits that are written go from events_read (5.7.4).
void GpuDevice::writeConfig(std::uint64_t offset, unsigned size, std::uint32_t value) {
  if (offset != 4 || size != 4) return;
  std::lock_guard lock(mutex_);
  events_ &= ~value;
}

void GpuDevice::reset() {
  QueuedDevice::reset();
  std::lock_guard lock(mutex_);
  resources_.clear();
  hostBytes_ = 0;
  shown_ = 0;
  cursor_ = {};
  pointerChanged_ = true;
  events_ = 0;
}

void GpuDevice::notify(unsigned queue) {
  drain(queue, [&](Chain chain) {
    Header header{};
    std::vector<std::uint8_t> answer(sizeof header);
    std::uint32_t response = unspecified;
    if (takeFront(chain.readable, &header, sizeof header)) {
      std::lock_guard lock(mutex_);
      response = runLocked(header, chain, answer);
    }
    Header head{response, header.flags & kFence, 0, 0, 0};
    if (head.flags != 0) {
      head.fence = header.fence;
      head.context = header.context;
    }
    std::memcpy(answer.data(), &head, sizeof head);
    std::size_t written = 0;
    for (const iovec& v : chain.writable) {
      std::size_t part = std::min(v.iov_len, answer.size() - written);
      std::memcpy(v.iov_base, answer.data() + written, part);
      written += part;
    }
    finish(queue, std::move(chain), static_cast<std::uint32_t>(written));
  });
}

std::uint32_t GpuDevice::runLocked(const Header& header, Chain& chain, std::vector<std::uint8_t>& answer) {
  switch (header.type) {
    case getDisplayInfo: {
      answer.resize(sizeof header + kScanouts * 24);
      const std::uint32_t first[6] = {0, 0, width_, height_, 1, 0};
      std::memcpy(answer.data() + sizeof header, first, sizeof first);
      return okDisplayInfo;
    }
    case createResource2d:
      return createLocked(chain);
    case unrefResource:
      return unrefLocked(chain);
    case setScanout:
      return setScanoutLocked(chain);
    case flushResource:
      return flushLocked(chain);
    case transferToHost2d:
      return transferLocked(chain);
    case attachBacking:
      return attachLocked(chain);
    case detachBacking: {
      ResourceAndPad request{};
      Resource* resource = takeFront(chain.readable, &request, sizeof request) ? findLocked(request.resource) : nullptr;
      if (!resource) return invalidResource;
      resource->backing.clear();
      return okNoData;
    }
    case getEdid:
      return edidLocked(chain, answer);
    case updateCursor:
    case moveCursor:
      return cursorLocked(chain, header.type == updateCursor);
    default:
      return unspecified;
  }
}

GpuDevice::Resource* GpuDevice::findLocked(std::uint32_t id) {
  auto it = resources_.find(id);
  return it == resources_.end() ? nullptr : &it->second;
}

std::uint32_t GpuDevice::createLocked(Chain& chain) {
  struct {
    std::uint32_t id, format, width, height;
  } request{};
  if (!takeFront(chain.readable, &request, sizeof request) || request.width == 0 || request.height == 0 ||
      request.width > kMaxSide || request.height > kMaxSide || !shiftsOf(request.format))
    return invalidParameter;
  if (request.id == 0 || findLocked(request.id)) return invalidResource;
  std::uint64_t pixels = std::uint64_t{request.width} * request.height;
  // A small resource costs something, too.
  if (hostBytes_ + 4 * pixels > kMaxHostBytes || resources_.size() >= kMaxRanges) return outOfMemory;
  hostBytes_ += 4 * pixels;
  Resource& resource = resources_[request.id];
  resource = {request.width, request.height, request.format, {}, {}};
  resource.pixels.resize(pixels);
  return okNoData;
}

std::uint32_t GpuDevice::unrefLocked(Chain& chain) {
  ResourceAndPad request{};
  Resource* resource = takeFront(chain.readable, &request, sizeof request) ? findLocked(request.resource) : nullptr;
  if (!resource) return invalidResource;
  hostBytes_ -= 4 * resource->pixels.size();
  resources_.erase(request.resource);
  if (shown_ == request.resource) shown_ = 0;
  if (cursor_.resource == request.resource) {
    cursor_.resource = 0;
    pointerChanged_ = true;
  }
  return okNoData;
}

std::uint32_t GpuDevice::setScanoutLocked(Chain& chain) {
  struct {
    Rectangle r;
    std::uint32_t scanout, resource;
  } request{};
  if (!takeFront(chain.readable, &request, sizeof request)) return invalidParameter;
  if (request.scanout != 0) return invalidScanout;
  if (request.resource == 0) {
    shown_ = 0;
    return okNoData;
  }
  Resource* resource = findLocked(request.resource);
  if (!resource) return invalidResource;
  if (request.r.width == 0 || request.r.height == 0 || !resource->contains(request.r)) return invalidParameter;
  shown_ = request.resource;
  scanout_ = request.r;
  changed_ = true;
  return okNoData;
}

std::uint32_t GpuDevice::flushLocked(Chain& chain) {
  struct {
    Rectangle r;
    ResourceAndPad id;
  } request{};
  Resource* resource = takeFront(chain.readable, &request, sizeof request) ? findLocked(request.id.resource) : nullptr;
  if (!resource) return invalidResource;
  if (!resource->contains(request.r)) return invalidParameter;
  changed_ = changed_ || request.id.resource == shown_;
  return okNoData;
}

std::uint32_t GpuDevice::transferLocked(Chain& chain) {
  struct {
    Rectangle r;
    std::uint64_t offset;
    ResourceAndPad id;
  } request{};
  Resource* resource = takeFront(chain.readable, &request, sizeof request) ? findLocked(request.id.resource) : nullptr;
  if (!resource) return invalidResource;
  const Rectangle& r = request.r;
  if (!resource->contains(r)) return invalidParameter;
  for (std::uint32_t row = 0; row < r.height; ++row) {
    std::uint64_t from = request.offset + std::uint64_t{row} * resource->width * 4;
    auto to = std::span(resource->pixels).subspan(std::uint64_t{r.y + row} * resource->width + r.x, r.width);
    if (!readBackingLocked(*resource, from, std::as_writable_bytes(to))) return unspecified;
  }
  return okNoData;
}

/// Bytes of the backing from `offset` on, wherever its ranges are. False: not that much, or not in RAM.
bool GpuDevice::readBackingLocked(const Resource& resource, std::uint64_t offset, std::span<std::byte> to) const {
  for (const Range& range : resource.backing) {
    if (to.empty()) break;
    if (offset >= range.length) {
      offset -= range.length;
      continue;
    }
    std::size_t part = std::min<std::uint64_t>(to.size(), range.length - offset);
    if (!memory_.read(Gpa{range.address + offset}, to.first(part))) return false;
    to = to.subspan(part);
    offset = 0;
  }
  return to.empty();
}

std::uint32_t GpuDevice::attachLocked(Chain& chain) {
  struct {
    std::uint32_t id, entries;
  } request{};
  Resource* resource = takeFront(chain.readable, &request, sizeof request) ? findLocked(request.id) : nullptr;
  if (!resource) return invalidResource;
  if (request.entries > kMaxRanges || !resource->backing.empty()) return invalidParameter;
  std::vector<Range> ranges;
  for (std::uint32_t n = 0; n < request.entries; ++n) {
    struct {
      std::uint64_t address;
      std::uint32_t length, pad;
    } entry{};
    if (!takeFront(chain.readable, &entry, sizeof entry)) return invalidParameter;
    // Neighbours become one: a row is then read in one piece.
    if (!ranges.empty() && ranges.back().address + ranges.back().length == entry.address) {
      ranges.back().length += entry.length;
    } else {
      ranges.push_back({entry.address, entry.length});
    }
  }
  resource->backing = std::move(ranges);
  return okNoData;
}

std::uint32_t GpuDevice::cursorLocked(Chain& chain, bool shape) {
  struct {
    std::uint32_t scanout, x, y, pad;
    std::uint32_t resource, hotX, hotY, pad2;
  } request{};
  if (!takeFront(chain.readable, &request, sizeof request)) return invalidParameter;
  cursor_.x = request.x;
  cursor_.y = request.y;
  pointerChanged_ = true;
  if (!shape) return okNoData;
  Resource* resource = request.resource == 0 ? nullptr : findLocked(request.resource);
  if (request.resource != 0 && !resource) return invalidResource;
  cursor_.resource = request.resource;
  cursor_.hotX = std::min(request.hotX, kCursorSide);
  cursor_.hotY = std::min(request.hotY, kCursorSide);
  return okNoData;
}

bool GpuDevice::active() const {
  std::lock_guard lock(mutex_);
  return shown_ != 0;
}

void GpuDevice::redraw() {
  std::lock_guard lock(mutex_);
  changed_ = true;
}

bool GpuDevice::draw(Target target) {
  std::lock_guard lock(mutex_);
  const Resource* resource = shown_ == 0 ? nullptr : findLocked(shown_);
  if (!resource || !changed_) return false;
  changed_ = false;
  const Rectangle& r = scanout_;
  Shifts shifts = *shiftsOf(resource->format);
  target.width = r.width;
  target.height = r.height;
  target.pixels.resize(std::size_t{r.width} * r.height);
  for (std::uint32_t y = 0; y < r.height; ++y) {
    const std::uint32_t* from = resource->pixels.data() + std::size_t{r.y + y} * resource->width + r.x;
    std::uint32_t* to = target.pixels.data() + std::size_t{y} * r.width;
    for (std::uint32_t x = 0; x < r.width; ++x) to[x] = toRgb(from[x], shifts);
  }
  return true;
}

std::optional<GpuDevice::Pointer> GpuDevice::takePointer() {
  std::lock_guard lock(mutex_);
  if (!std::exchange(pointerChanged_, false)) return std::nullopt;
  // Positions left of and above the scanout are large numbers in the request.
  Pointer pointer{0, 0, 0, 0, static_cast<std::int32_t>(cursor_.x), static_cast<std::int32_t>(cursor_.y), {}};
  const Resource* shape = cursor_.resource == 0 ? nullptr : findLocked(cursor_.resource);
  if (!shape) return pointer;
  Shifts shifts = *shiftsOf(shape->format);
  pointer.width = std::min(shape->width, kCursorSide);
  pointer.height = std::min(shape->height, kCursorSide);
  pointer.hotX = std::min(cursor_.hotX, pointer.width - 1);
  pointer.hotY = std::min(cursor_.hotY, pointer.height - 1);
  for (std::uint32_t y = 0; y < pointer.height; ++y) {
    for (std::uint32_t x = 0; x < pointer.width; ++x) {
      std::uint32_t pixel = shape->pixels[std::size_t{y} * shape->width + x];
      pointer.pixels.push_back(alphaOf(pixel, shape->format) << 24 | toRgb(pixel, shifts));
    }
  }
  return pointer;
}

std::uint32_t GpuDevice::edidLocked(Chain& chain, std::vector<std::uint8_t>& answer) const {
  struct {
    std::uint32_t scanout, pad;
  } request{};
  if (!takeFront(chain.readable, &request, sizeof request)) return invalidParameter;
  if (request.scanout != 0) return invalidScanout;
  auto edid = edidOf(width_, height_);
  const std::uint32_t size[2] = {static_cast<std::uint32_t>(edid.size()), 0};
  answer.resize(sizeof(Header) + sizeof size + 1024);
  std::memcpy(answer.data() + sizeof(Header), size, sizeof size);
  std::memcpy(answer.data() + sizeof(Header) + sizeof size, edid.data(), edid.size());
  return okEdid;
}

void GpuDevice::requestSize(std::uint32_t width, std::uint32_t height) {
  constexpr std::uint32_t kDisplayEvent = 1;
  {
    std::lock_guard lock(mutex_);
    if (width == width_ && height == height_) return;
    width_ = width;
    height_ = height;
    events_ |= kDisplayEvent;
  }
  if (transport_) transport_->signalConfig();
}

}  // namespace lodge::virtio
