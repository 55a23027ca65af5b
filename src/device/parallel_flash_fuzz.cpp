// SPDX-License-Identifier: Apache-2.0
// A hostile guest at the flash chip: any command, anywhere; what it reads as memory is what the chip holds.
#include <cstddef>
#include <cstdint>

#include "base/bytes.h"
#include "device/parallel_flash.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lodge;
  constexpr std::uint64_t kBytes = 0x3000;
  static std::unique_ptr<GuestMemory> memory = std::move(*GuestMemory::create(1_MiB, {.rom = kBytes, .video = 0}));
  if (size == 0) return 0;
  bool changed = false, readOnly = (*data & 1) != 0;
  ParallelFlash flash({.memory = *memory,
                       .region = 0,
                       .base = Gpa{4_GiB - kBytes},
                       .offset = memory->romOffset(),
                       .bytes = kBytes,
                       .readOnly = readOnly,
                       .store = [&](std::uint64_t offset, std::span<const std::byte> bytes) {
                         changed = true;
                         if (offset > kBytes || bytes.size() > kBytes - offset) __builtin_trap();
                       }});
  for (++data, --size; size >= 6; data += 6, size -= 6) {
    auto where = loadLe<std::uint16_t>(data) % kBytes;
    unsigned bytes = 1u << (data[0] & 3);
    auto value = loadLe<std::uint32_t>(data + 2);
    if (data[1] >= 0xf8) {
      flash.reset();
    } else if ((data[1] & 0x40) != 0) {
      flash.read(where, bytes);
    } else {
      flash.write(where, bytes, value);
    }
  }
  if (readOnly && changed) __builtin_trap();
  return 0;
}
