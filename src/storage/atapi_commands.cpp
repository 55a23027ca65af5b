// SPDX-License-Identifier: Apache-2.0
// What a CD-ROM drive answers (MMC-3, SPC-2).
#include "storage/atapi_drive.h"

namespace lodge {

namespace {
constexpr unsigned kLeadOut = 0xaa, kGap = 150;  // 2 s of 75 frames lie before the first sector

std::uint32_t be(const std::uint8_t* bytes, unsigned size) {
  std::uint32_t value = 0;
  for (unsigned n = 0; n < size; ++n) value = value << 8 | bytes[n];
  return value;
}

/// Appends big-endian fields.
class Answer {
 public:
  Answer& put(std::uint32_t value, unsigned size) {
    for (unsigned n = size; n-- > 0;) bytes_.push_back(static_cast<std::uint8_t>(value >> (8 * n)));
    return *this;
  }
  Answer& text(const char* text, unsigned size) {
    for (unsigned n = 0; n < size; ++n) bytes_.push_back(static_cast<std::uint8_t>(*text != 0 ? *text++ : ' '));
    return *this;
  }
  Answer& zeros(std::size_t count) {
    bytes_.resize(bytes_.size() + count);
    return *this;
  }
  /// The field at `at` counts what follows it.
  Answer& countAt(std::size_t at, unsigned size) {
    auto length = static_cast<std::uint32_t>(bytes_.size() - at - size);
    for (unsigned n = 0; n < size; ++n) bytes_[at + n] = static_cast<std::uint8_t>(length >> (8 * (size - 1 - n)));
    return *this;
  }
  std::vector<std::uint8_t> take() { return std::move(bytes_); }

 private:
  std::vector<std::uint8_t> bytes_;
};

/// An address of the table of contents: minute, second, frame, or sector.
std::uint32_t tocAddress(std::uint32_t lba, bool msf) {
  if (!msf) return lba;
  std::uint32_t frame = lba + kGap;
  return (frame / 4500 & 0xff) << 16 | (frame / 75 % 60) << 8 | frame % 75;
}
}  // namespace

void AtapiDrive::execute(const Packet& p) {
  // A change of medium is reported once, by every command but these (MMC-3, 4.1.6).
  bool silent = p[0] == 0x12 || p[0] == 0x03 || p[0] == 0x46 || p[0] == 0x4a;
  if (changed_ && !silent) {
    changed_ = false;
    return fail(sense::attention, 0x2800);
  }
  switch (p[0]) {
    case 0x12:
      return inquiry(p);
    case 0x03:
      return requestSense(p);
    case 0x1b:
      return startStop(p);
    case 0x1e:
      locked_ = (p[4] & 1) != 0;
      return succeed();
    case 0x5a:
      return modeSense(p);
    case 0x46:
      return getConfiguration(p);
    case 0x4a:
      return eventStatus(p);
    case 0xbd:  // MECHANISM STATUS
      return answer(Answer().zeros(8).take(), be(&p[8], 2));
    default:
      break;
  }
  if (!disk_) return fail(sense::notReady, 0x3a00);
  if (!executeWithMedium(p)) fail(sense::illegal, 0x2000);
}

bool AtapiDrive::executeWithMedium(const Packet& p) {
  switch (p[0]) {
    case 0x00:  // TEST UNIT READY, SEEK, SET CD SPEED
    case 0x2b:
    case 0xbb:
      succeed();
      return true;
    case 0x25:  // READ CAPACITY
      answer(Answer().put(sectors() - 1, 4).put(kSector, 4).take(), 8);
      return true;
    case 0x28:
      readSectors(be(&p[2], 4), be(&p[7], 2));
      return true;
    case 0xa8:
      readSectors(be(&p[2], 4), be(&p[6], 4));
      return true;
    case 0xbe:  // READ CD: user data only
      if ((p[9] & 0xf8) == 0) {
        succeed();
      } else if ((p[9] & 0xf8) == 0x10) {
        readSectors(be(&p[2], 4), be(&p[6], 3));
      } else {
        fail(sense::illegal, 0x2400);
      }
      return true;
    case 0x43:
      readToc(p);
      return true;
    case 0x51:
      readDiscInformation(p);
      return true;
    case 0x42:  // READ SUB-CHANNEL: audio status not valid
      answer(Answer().zeros(4).take(), be(&p[7], 2));
      return true;
    default:
      return false;
  }
}

void AtapiDrive::inquiry(const Packet& p) {
  Answer a;
  a.put(0x05800021, 4).put(31, 1).zeros(3).text("LODGE", 8).text("DVD-ROM", 16).text("1.0", 4);
  answer(a.take(), be(&p[3], 2));
}

void AtapiDrive::requestSense(const Packet& p) {
  Answer a;
  if (changed_ && senseKey_ == sense::none) {
    changed_ = false;
    senseKey_ = sense::attention;
    senseCode_ = 0x2800;
  }
  a.put(0x70, 1).zeros(1).put(senseKey_, 1).zeros(4).put(10, 1).zeros(4).put(senseCode_, 2).zeros(4);
  answer(a.take(), p[4]);
}

void AtapiDrive::startStop(const Packet& p) {
  bool eject = (p[4] & 3) == 2;
  if (eject && locked_) return fail(sense::notReady, 0x5302);
  if (eject && disk_) {
    removeMedium();
    changeEvent_ = true;
  }
  succeed();
}

void AtapiDrive::modeSense(const Packet& p) {
  Answer a;
  a.zeros(8);
  unsigned page = p[2] & 0x3f;
  if (page != 0x01 && page != 0x2a && page != 0x3f) return fail(sense::illegal, 0x2400);
  if (page != 0x2a) a.put(0x0106, 2).zeros(6);
  // Capabilities: reads all media, locks, ejects, a tray; 706 kB/s.
  if (page != 0x01) {
    a.put(0x2a12, 2).put(0x3b00, 2).put(0x7160, 2).put(locked_ ? 0x2b : 0x29, 1).put(0, 1);
    a.put(706, 2).put(2, 2).put(512, 2).put(706, 2).zeros(4);
  }
  a.countAt(0, 2);
  answer(a.take(), be(&p[7], 2));
}

void AtapiDrive::readToc(const Packet& p) {
  bool msf = (p[1] & 2) != 0;
  unsigned format = (p[2] & 15) != 0 ? p[2] & 15 : p[9] >> 6;
  unsigned track = p[6];
  Answer a;
  switch (format) {
    case 0:
      if (track > 1 && track != kLeadOut) return fail(sense::illegal, 0x2400);
      a.zeros(2).put(0x0101, 2);
      if (track <= 1) a.put(0x00140100, 4).put(tocAddress(0, msf), 4);
      a.put(0x00140000 | kLeadOut << 8, 4).put(tocAddress(sectors(), msf), 4);
      break;
    case 1:  // sessions: one, from the first track on
      a.zeros(2).put(0x0101, 2).put(0x00140100, 4).put(tocAddress(0, msf), 4);
      break;
    default:
      return fail(sense::illegal, 0x2400);
  }
  a.countAt(0, 2);
  answer(a.take(), be(&p[7], 2));
}

void AtapiDrive::readDiscInformation(const Packet& p) {
  Answer a;
  a.zeros(2).put(0x0e, 1).put(1, 1).put(1, 1).put(1, 1).put(1, 1).put(0x20, 1).zeros(26);
  a.countAt(0, 2);
  answer(a.take(), be(&p[7], 2));
}

// Features that a reader of CDs and DVDs has (MMC-3, 5.3); `p`: from which feature on.
void AtapiDrive::getConfiguration(const Packet& p) {
  constexpr unsigned kCdRom = 0x0008, kDvdRom = 0x0010;
  constexpr std::uint32_t kCdSectors = 360'000;  // 80 minutes
  unsigned profile = !disk_ ? 0 : sectors() > kCdSectors ? kDvdRom : kCdRom;
  bool one = (p[1] & 3) == 2;
  unsigned first = be(&p[2], 2);
  auto wanted = [&](unsigned feature) { return one ? feature == first : feature >= first; };
  Answer a;
  a.zeros(6).put(profile, 2);
  if (wanted(0)) {
    a.put(0x00000308, 4).put(kDvdRom << 16 | (profile == kDvdRom ? 0x100 : 0), 4);
    a.put(kCdRom << 16 | (profile == kCdRom ? 0x100 : 0), 4);
  }
  if (wanted(1)) a.put(0x00010b08, 4).put(2, 4).put(1, 1).zeros(3);  // core: ATAPI
  if (wanted(3)) a.put(0x00030b04, 4).put(0x29, 1).zeros(3);         // removable medium: tray, eject, lock
  if (wanted(0x10)) a.put(0x00100104, 4).put(kSector, 4).put(0x00010000, 4);
  a.countAt(0, 4);
  answer(a.take(), be(&p[7], 2));
}

void AtapiDrive::eventStatus(const Packet& p) {
  constexpr unsigned kMediaClass = 4;
  if ((p[1] & 1) == 0) return fail(sense::illegal, 0x2400);  // asynchronous operation
  Answer a;
  if ((p[4] & 1 << kMediaClass) == 0) {
    a.put(0x00028010, 4);
    return answer(a.take(), be(&p[7], 2));
  }
  unsigned event = 0;
  if (ejectWanted_) {
    event = 1;
  } else if (changeEvent_) {
    event = disk_ ? 2 : 3;
  }
  ejectWanted_ = changeEvent_ = false;
  a.zeros(2).put(kMediaClass, 1).put(1 << kMediaClass, 1).put(event, 1).put(disk_ ? 2 : 1, 1).zeros(2);
  a.countAt(0, 2);
  answer(a.take(), be(&p[7], 2));
}

}  // namespace lodge
