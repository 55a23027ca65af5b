// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/error.h"

namespace lodge {

/// How a floppy disk is recorded: sectors of 512 bytes.
struct FloppyFormat {
  std::uint64_t bytes;
  std::uint8_t cylinders, heads, sectors;
  std::uint8_t rate;   ///< of the data, as the controller's registers have it: 0 500, 1 300, 2 250, 3 1000 kbit/s
  std::uint8_t drive;  ///< the type of the smallest drive for it, as CMOS register 0x10 has it
};

/// The format of a raw image of this size; nothing: no floppy disk has it.
std::optional<FloppyFormat> floppyFormatOf(std::uint64_t bytes);

/// An image of another size; `what` names it.
Error notAFloppy(const std::string& what, std::uint64_t bytes);

/// Drive types of CMOS register 0x10.
inline constexpr std::uint8_t kFloppy1200 = 2, kFloppy1440 = 4, kFloppy2880 = 5;

}  // namespace lodge
