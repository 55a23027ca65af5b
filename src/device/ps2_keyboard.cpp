// SPDX-License-Identifier: Apache-2.0
#include "device/ps2_keyboard.h"

namespace lodge {

namespace {
constexpr std::uint8_t kAck = 0xfa, kResend = 0xfe, kTestPassed = 0xaa, kEcho = 0xee, kBreak = 0xf0, kExtended = 0xe0;

// Set 2's code of each key by its code in set 1; 0: no key.
constexpr std::uint8_t kSet2[0x60] = {
    0x00, 0x76, 0x16, 0x1e, 0x26, 0x25, 0x2e, 0x36, 0x3d, 0x3e, 0x46, 0x45, 0x4e, 0x55, 0x66, 0x0d,  // 00
    0x15, 0x1d, 0x24, 0x2d, 0x2c, 0x35, 0x3c, 0x43, 0x44, 0x4d, 0x54, 0x5b, 0x5a, 0x14, 0x1c, 0x1b,  // 10
    0x23, 0x2b, 0x34, 0x33, 0x3b, 0x42, 0x4b, 0x4c, 0x52, 0x0e, 0x12, 0x5d, 0x1a, 0x22, 0x21, 0x2a,  // 20
    0x32, 0x31, 0x3a, 0x41, 0x49, 0x4a, 0x59, 0x7c, 0x11, 0x29, 0x58, 0x05, 0x06, 0x04, 0x0c, 0x03,  // 30
    0x0b, 0x83, 0x0a, 0x01, 0x09, 0x77, 0x7e, 0x6c, 0x75, 0x7d, 0x7b, 0x6b, 0x73, 0x74, 0x79, 0x69,  // 40
    0x72, 0x7a, 0x70, 0x71, 0x84, 0x00, 0x61, 0x78, 0x07, 0x00, 0x00, 0x1f, 0x27, 0x2f, 0x00, 0x00,  // 50
};
}  // namespace

void Ps2Keyboard::setDefaults() {
  set_ = 2;
  scanning_ = true;
  out_.clear();
}

void Ps2Keyboard::receive(std::uint8_t byte, bool translated) {
  if (pending_ != 0) {
    std::uint8_t command = pending_;
    pending_ = 0;
    return parameter(command, byte, translated);
  }
  switch (byte) {
    case 0xed:  // lights
    case 0xf0:  // scan code set
    case 0xf3:  // repetition
    case 0xfb:  // of set 3: which keys repeat, release
    case 0xfc:
    case 0xfd:
      pending_ = byte;
      return answer(kAck);
    case kEcho:
      return answer(kEcho);
    case 0xf2:  // identification: a keyboard of 101 and more keys
      answer(kAck);
      answer(0xab);
      return answer(translated ? 0x41 : 0x83);
    case 0xf4:
      out_.clear();
      scanning_ = true;
      return answer(kAck);
    case 0xf5:
    case 0xf6:
      setDefaults();
      scanning_ = byte == 0xf6;
      return answer(kAck);
    case 0xff:
      setDefaults();
      answer(kAck);
      return answer(kTestPassed);
    default:
      return answer(byte >= 0xf7 && byte <= 0xfa ? kAck : kResend);
  }
}

void Ps2Keyboard::parameter(std::uint8_t command, std::uint8_t value, bool translated) {
  if (command != 0xf0) return answer(kAck);
  if (value > 2) return answer(kResend);  // set 3 is not had
  answer(kAck);
  if (value != 0) set_ = value;
  // The set's number, as translation changes it.
  if (value == 0) answer(!translated ? set_ : set_ == 1 ? 0x43 : 0x41);
}

void Ps2Keyboard::key(unsigned code, bool down, bool translated) {
  constexpr unsigned kPause = 0xe11d;
  if (!scanning_ || !out_.hasRoom(8)) return;
  bool first = translated || set_ == 1;
  if (code == kPause) {
    if (!down) return;  // it says both at once
    const std::uint8_t in1[] = {0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5};
    const std::uint8_t in2[] = {0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77};
    if (first) {
      for (std::uint8_t byte : in1) answer(byte);
    } else {
      for (std::uint8_t byte : in2) answer(byte);
    }
    return;
  }
  unsigned low = code & 0x7f;
  if (low >= sizeof kSet2 || kSet2[low] == 0) return;
  if (code > 0xff) answer(kExtended);
  if (first) return answer(static_cast<std::uint8_t>(low | (down ? 0 : 0x80)));
  if (!down) answer(kBreak);
  answer(kSet2[low]);
}

}  // namespace lodge
