// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "firmware/byte_writer.h"

namespace lodge::firmware {

/// Writes a resource template, the content of a _CRS buffer (ACPI 6.0, 6.4). Ranges are given as base and length.
class ResourceWriter {
 public:
  /// 16-bit decoded I/O ports at a fixed address; `length` 1..255.
  ResourceWriter& io(std::uint16_t base, std::uint8_t length);
  /// An ISA interrupt: edge-triggered, active high. `irq` 0..15.
  ResourceWriter& irq(unsigned irq);
  /// An ISA DMA channel, 0..3: bytes, not as bus master.
  ResourceWriter& dma(unsigned channel);
  /// Level-triggered, active low, shared ISA interrupts, a bit each: a PCI interrupt's choices, or what it has.
  ResourceWriter& pciIrqs(std::uint16_t mask);
  ResourceWriter& fixedMemory(std::uint32_t base, std::uint32_t length);
  /// Windows that a bridge passes on (producer).
  ResourceWriter& busWindow(std::uint16_t first, std::uint16_t count);
  ResourceWriter& ioWindow(std::uint16_t first, std::uint16_t last);
  ResourceWriter& memoryWindow32(std::uint32_t base, std::uint32_t length);
  ResourceWriter& memoryWindow64(std::uint64_t base, std::uint64_t length);
  /// With the end tag.
  std::vector<std::uint8_t> take();

 private:
  ByteWriter out_;
};

}  // namespace lodge::firmware
