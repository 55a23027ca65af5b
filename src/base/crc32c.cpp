// SPDX-License-Identifier: Apache-2.0
#include "base/crc32c.h"

#include <array>

#include "base/bytes.h"

namespace lodge {

namespace {

constexpr std::array<std::uint32_t, 256> makeTable() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? 0x82f63b78U : 0U);
    table[i] = value;
  }
  return table;
}

std::uint32_t byTable(std::span<const std::byte> bytes, std::uint32_t crc) {
  static constexpr auto kTable = makeTable();
  for (std::byte b : bytes) crc = (crc >> 8) ^ kTable[(crc ^ static_cast<std::uint32_t>(b)) & 0xff];
  return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) std::uint32_t byInstruction(std::span<const std::byte> bytes, std::uint32_t crc) {
  std::uint64_t wide = crc;
  std::size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    wide = __builtin_ia32_crc32di(wide, loadLe<std::uint64_t>(bytes.data() + i));
  }
  auto narrow = static_cast<std::uint32_t>(wide);
  for (; i < bytes.size(); ++i) narrow = __builtin_ia32_crc32qi(narrow, static_cast<std::uint8_t>(bytes[i]));
  return narrow;
}
#endif

}  // namespace

std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t before) {
#if defined(__x86_64__)
  static const bool fast = __builtin_cpu_supports("sse4.2");
  if (fast) return ~byInstruction(bytes, ~before);
#endif
  return ~byTable(bytes, ~before);
}

}  // namespace lodge
