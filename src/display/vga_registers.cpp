// SPDX-License-Identifier: Apache-2.0
// The ports of the VGA: sequencer, graphics controller, attribute controller, CRT controller, palette; in code that may
// run while the guest's vector registers are live (CMakeLists.txt).
#include "display/vga.h"

namespace lodge {

namespace {
// Offsets from 0x3b0; the CRT controller answers at both of its places, whatever the miscellaneous register says.
enum Port : unsigned {
  crtcIndexMono = 0x04,
  crtcDataMono = 0x05,
  statusMono = 0x0a,
  attribute = 0x10,
  attributeRead = 0x11,
  misc = 0x12,  // read: input status 0
  sequencerIndex = 0x14,
  sequencerData = 0x15,
  dacMask = 0x16,
  dacReadIndex = 0x17,  // read: state
  dacWriteIndex = 0x18,
  dacData = 0x19,
  featureRead = 0x1a,
  miscRead = 0x1c,
  graphicsIndex = 0x1e,
  graphicsData = 0x1f,
  crtcIndexColor = 0x24,
  crtcDataColor = 0x25,
  statusColor = 0x2a,
};
constexpr std::uint8_t kRetraceBits = 0x09;
// Bits that the registers have.
constexpr std::uint8_t kSequencerMask[8] = {0x03, 0x3d, 0x0f, 0x3f, 0x0e, 0, 0, 0xff};
constexpr std::uint8_t kGraphicsMask[16] = {0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff};
}  // namespace

std::uint64_t Vga::readPortsLocked(std::uint64_t offset, unsigned size) {
  std::uint64_t value = 0;
  for (unsigned n = 0; n < size; ++n) {
    value |= std::uint64_t{readPortLocked(static_cast<unsigned>(offset) + n)} << (8 * n);
  }
  return value;
}

void Vga::writePortsLocked(std::uint64_t offset, unsigned size, std::uint64_t value) {
  for (unsigned n = 0; n < size; ++n) {
    writePortLocked(static_cast<unsigned>(offset) + n, static_cast<std::uint8_t>(value >> (8 * n)));
  }
}

std::uint8_t Vga::readPortLocked(unsigned port) {
  Registers& r = regs_;
  switch (port) {
    case crtcIndexMono:
    case crtcIndexColor:
      return r.crtcIndex;
    case crtcDataMono:
    case crtcDataColor:
      return r.crtc[r.crtcIndex];
    case statusMono:
    case statusColor:
      r.attributeData = false;
      // Guests wait for the beginning and the end of a retrace: each look sees the other.
      r.retrace = !r.retrace;
      return r.retrace ? kRetraceBits : 0;
    case attribute:
      return r.attributeData ? 0 : r.attributeIndex;
    case attributeRead:
      return r.attribute[r.attributeIndex & 0x1f];
    case sequencerIndex:
      return r.sequencerIndex;
    case sequencerData:
      return r.sequencer[r.sequencerIndex & 7];
    case dacMask:
      return r.dacMask;
    case dacReadIndex:
      return r.dacState;
    case dacWriteIndex:
      return r.dacWrite;
    case dacData: {
      std::uint8_t value = r.palette[r.dacRead * 3u + r.dacPart];
      if (++r.dacPart == 3) {
        r.dacPart = 0;
        ++r.dacRead;
      }
      return value;
    }
    case featureRead:
      return r.feature;
    case miscRead:
      return r.misc;
    case graphicsIndex:
      return r.graphicsIndex;
    case graphicsData:
      return r.graphics[r.graphicsIndex & 15];
    case misc:
      return 0x10;  // a monitor is there
    default:
      return 0xff;
  }
}

void Vga::writePortLocked(unsigned port, std::uint8_t value) {
  Registers& r = regs_;
  switch (port) {
    case crtcIndexMono:
    case crtcIndexColor:
      r.crtcIndex = value;
      return;
    case crtcDataMono:
    case crtcDataColor: {
      constexpr unsigned kOverflow = 7, kProtect = 0x11, kLineCompareBit = 0x10;
      bool isProtected = (r.crtc[kProtect] & 0x80) != 0 && r.crtcIndex <= kOverflow;
      if (isProtected && r.crtcIndex != kOverflow) return;
      std::uint8_t mask = isProtected ? kLineCompareBit : 0xff;
      r.crtc[r.crtcIndex] = static_cast<std::uint8_t>((r.crtc[r.crtcIndex] & ~mask) | (value & mask));
      break;
    }
    case statusMono:
    case statusColor:
      r.feature = value;
      return;
    case attribute:
      writeAttributeLocked(value);
      break;
    case misc:
      r.misc = value & 0xef;
      break;
    case sequencerIndex:
      r.sequencerIndex = value & 7;
      return;
    case sequencerData:
      r.sequencer[r.sequencerIndex] = value & kSequencerMask[r.sequencerIndex];
      break;
    case dacMask:
      r.dacMask = value;
      break;
    case dacReadIndex:
      r.dacRead = value;
      r.dacPart = 0;
      r.dacState = 3;
      return;
    case dacWriteIndex:
      r.dacWrite = value;
      r.dacPart = 0;
      r.dacState = 0;
      return;
    case dacData:
      r.palette[r.dacWrite * 3u + r.dacPart] = value;
      if (++r.dacPart == 3) {
        r.dacPart = 0;
        ++r.dacWrite;
      }
      break;
    case graphicsIndex:
      r.graphicsIndex = value & 15;
      return;
    case graphicsData:
      r.graphics[r.graphicsIndex] = value & kGraphicsMask[r.graphicsIndex];
      break;
    default:
      return;
  }
  changed_ = true;
}

void Vga::writeAttributeLocked(std::uint8_t value) {
  Registers& r = regs_;
  if (!r.attributeData) {
    r.attributeIndex = value & 0x3f;
  } else if ((r.attributeIndex & 0x1f) < 0x15) {
    r.attribute[r.attributeIndex & 0x1f] = value & ((r.attributeIndex & 0x1f) < 0x10 ? 0x3f : 0xff);
  }
  r.attributeData = !r.attributeData;
}

}  // namespace lodge
