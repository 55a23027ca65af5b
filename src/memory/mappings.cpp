// SPDX-License-Identifier: Apache-2.0
#include "memory/mappings.h"

#include <algorithm>

namespace lodge {

namespace {

constexpr std::uint64_t kRegionStep = 64_KiB;

class MapBuilder {
 public:
  MapBuilder(const GuestMemory& memory, bool smm) : memory_(memory), smm_(smm) {}

  /// All of [start, end), whose pages change at the multiples of `step` only.
  void add(std::uint64_t start, std::uint64_t end, std::uint64_t step) {
    for (std::uint64_t at = start; at < end; at += step) addPiece(at, std::min(step, end - at));
  }
  std::vector<MemoryMapping> take() { return std::move(pieces_); }

 private:
  void addPiece(std::uint64_t gpa, std::uint64_t length) {
    std::uint64_t offset = memory_.offsetOf(Gpa{gpa});
    if (offset == GuestMemory::kNoOffset && smm_) offset = memory_.smramOffsetOf(Gpa{gpa});
    if (offset == GuestMemory::kNoOffset || length == 0) return;
    bool writable =
        !memory_.isRomOffset(offset) && (memory_.writableOffsetOf(Gpa{gpa}) != GuestMemory::kNoOffset ||
                                         (smm_ && memory_.smramOffsetOf(Gpa{gpa}) != GuestMemory::kNoOffset));
    MemoryMapping piece{gpa, offset, length, writable, memory_.isVideoOffset(offset)};
    if (!pieces_.empty()) {
      MemoryMapping& last = pieces_.back();
      if (last.gpa + last.length == gpa && last.offset + last.length == offset && last.writable == writable &&
          last.video == piece.video) {
        last.length += length;
        return;
      }
    }
    pieces_.push_back(piece);
  }

  const GuestMemory& memory_;
  bool smm_;
  std::vector<MemoryMapping> pieces_;
};

}  // namespace

std::vector<MemoryMapping> memoryMappings(const GuestMemory& memory, bool smm) {
  // Everything before the hole, page by page where the shadow map may change it.
  MapBuilder builder(memory, smm);
  std::uint64_t lowEnd = memory.lowSize(), shadowStart = std::min(GuestMemory::kShadowStart, lowEnd),
                shadowEnd = std::min(GuestMemory::kShadowEnd, lowEnd);
  builder.add(0, shadowStart, kRegionStep);
  builder.add(shadowStart, shadowEnd, kPageSize);
  // Regions lie in the hole, and system management RAM at the end of what is before it: both at multiples of their
  // size, which is 64 KiB at least.
  builder.add(shadowEnd, lowEnd, kRegionStep);
  builder.add(alignUp(lowEnd, kRegionStep), GuestMemory::kHoleEnd, kRegionStep);
  builder.add(GuestMemory::kHoleEnd, GuestMemory::kHoleEnd + memory.highSize(), memory.highSize());
  return builder.take();
}

}  // namespace lodge
