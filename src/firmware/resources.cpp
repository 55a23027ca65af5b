// SPDX-License-Identifier: Apache-2.0
#include "firmware/resources.h"

namespace lodge::firmware {

namespace {
// Tags: small items have their length in the tag (6.4.2), large ones in the next two bytes (6.4.3).
constexpr std::uint8_t kIrqNoFlags = 0x22, kIo = 0x47, kEndTag = 0x79;
constexpr std::uint8_t kFixedMemory32 = 0x86, kDwordSpace = 0x87, kWordSpace = 0x88, kQwordSpace = 0x8a;

// Address space descriptors (6.4.3.5): general flags: minimum and maximum fixed, positive decode, producer.
constexpr std::uint8_t kTypeMemory = 0, kTypeIo = 1, kTypeBus = 2, kFixedProducer = 0x0c;
constexpr std::uint8_t kEntireIoRange = 3, kReadWriteUncached = 1;
}  // namespace

ResourceWriter& ResourceWriter::io(std::uint16_t base, std::uint8_t length) {
  constexpr std::uint8_t kDecode16 = 1;
  out_.u8(kIo).u8(kDecode16).u16(base).u16(base).u8(1).u8(length);
  return *this;
}

ResourceWriter& ResourceWriter::irq(unsigned irq) {
  out_.u8(kIrqNoFlags).u16(1u << irq);
  return *this;
}

ResourceWriter& ResourceWriter::dma(unsigned channel) {
  constexpr std::uint8_t kDma = 0x2a, kBytes = 0;
  out_.u8(kDma).u8(static_cast<std::uint8_t>(1u << channel)).u8(kBytes);
  return *this;
}

ResourceWriter& ResourceWriter::pciIrqs(std::uint16_t mask) {
  constexpr std::uint8_t kIrqWithFlags = 0x23, kLevelLowShared = 0x18;
  out_.u8(kIrqWithFlags).u16(mask).u8(kLevelLowShared);
  return *this;
}

ResourceWriter& ResourceWriter::fixedMemory(std::uint32_t base, std::uint32_t length) {
  out_.u8(kFixedMemory32).u16(9).u8(1).u32(base).u32(length);
  return *this;
}

ResourceWriter& ResourceWriter::busWindow(std::uint16_t first, std::uint16_t count) {
  out_.u8(kWordSpace).u16(13).u8(kTypeBus).u8(kFixedProducer).u8(0);
  out_.u16(0).u16(first).u16(first + count - 1u).u16(0).u16(count);
  return *this;
}

ResourceWriter& ResourceWriter::ioWindow(std::uint16_t first, std::uint16_t last) {
  out_.u8(kWordSpace).u16(13).u8(kTypeIo).u8(kFixedProducer).u8(kEntireIoRange);
  out_.u16(0).u16(first).u16(last).u16(0).u16(last - first + 1u);
  return *this;
}

ResourceWriter& ResourceWriter::memoryWindow32(std::uint32_t base, std::uint32_t length) {
  out_.u8(kDwordSpace).u16(23).u8(kTypeMemory).u8(kFixedProducer).u8(kReadWriteUncached);
  out_.u32(0).u32(base).u32(base + length - 1).u32(0).u32(length);
  return *this;
}

ResourceWriter& ResourceWriter::memoryWindow64(std::uint64_t base, std::uint64_t length) {
  out_.u8(kQwordSpace).u16(43).u8(kTypeMemory).u8(kFixedProducer).u8(kReadWriteUncached);
  out_.u64(0).u64(base).u64(base + length - 1).u64(0).u64(length);
  return *this;
}

std::vector<std::uint8_t> ResourceWriter::take() {
  out_.u8(kEndTag).u8(0);  // a checksum of 0 means: not computed
  return out_.take();
}

}  // namespace lodge::firmware
