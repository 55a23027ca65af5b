// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

namespace lodge::virtio {

/// What a monitor says of itself (VESA E-EDID 1.4, base block): its preferred mode has this size, 1 to 4095 pixels a
/// side, at 60 Hz (less where the pixel clock's field ends, at 655.35 MHz), with the blanking of CVT-RB.
std::array<std::uint8_t, 128> edidOf(std::uint32_t width, std::uint32_t height);

}  // namespace lodge::virtio
