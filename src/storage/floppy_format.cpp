// SPDX-License-Identifier: Apache-2.0
#include "storage/floppy_format.h"

#include <fmt/format.h>

#include <array>

namespace lodge {

std::optional<FloppyFormat> floppyFormatOf(std::uint64_t bytes) {
  struct Row {
    std::uint8_t cylinders, heads, sectors, rate, drive;
  };
  constexpr std::array<Row, 8> kRows = {{{40, 1, 8, 2, kFloppy1440},
                                         {40, 1, 9, 2, kFloppy1440},
                                         {40, 2, 8, 2, kFloppy1440},
                                         {40, 2, 9, 2, kFloppy1440},
                                         {80, 2, 9, 2, kFloppy1440},
                                         {80, 2, 15, 0, kFloppy1200},
                                         {80, 2, 18, 0, kFloppy1440},
                                         {80, 2, 36, 3, kFloppy2880}}};
  for (const Row& row : kRows) {
    if (bytes == std::uint64_t{512} * row.cylinders * row.heads * row.sectors)
      return FloppyFormat{bytes, row.cylinders, row.heads, row.sectors, row.rate, row.drive};
  }
  return std::nullopt;
}

Error notAFloppy(const std::string& what, std::uint64_t bytes) {
  return Error(ErrorKind::invalidArgument, fmt::format("{}: no floppy disk has {} bytes", what, bytes))
      .withHint("they have 160K, 180K, 320K, 360K, 720K, 1200K, 1440K or 2880K");
}

}  // namespace lodge
