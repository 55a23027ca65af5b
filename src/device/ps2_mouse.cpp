// SPDX-License-Identifier: Apache-2.0
#include "device/ps2_mouse.h"

#include <algorithm>

namespace lodge {

namespace {
constexpr std::uint8_t kAck = 0xfa, kResend = 0xfe, kTestPassed = 0xaa, kWheelMouse = 3;
constexpr int kMostMotion = 255, kMostKept = 10'000;
}  // namespace

void Ps2Mouse::setDefaults() {
  resolution_ = 2;
  rate_ = 100;
  reporting_ = remote_ = doubled_ = false;
  dx_ = dy_ = wheel_ = 0;
  out_.clear();
}

void Ps2Mouse::receive(std::uint8_t byte) {
  if (pending_ != 0) {
    std::uint8_t command = pending_;
    pending_ = 0;
    return parameter(command, byte);
  }
  switch (byte) {
    case 0xe6:
    case 0xe7:
      doubled_ = byte == 0xe7;
      return answer(kAck);
    case 0xe8:
    case 0xf3:
      pending_ = byte;
      return answer(kAck);
    case 0xe9:
      answer(kAck);
      answer(static_cast<std::uint8_t>((remote_ ? 0x40 : 0) | (reporting_ ? 0x20 : 0) | (doubled_ ? 0x10 : 0) |
                                       (buttons_ & 1) << 2 | (buttons_ & 4) >> 1 | (buttons_ & 2) >> 1));
      answer(resolution_);
      return answer(rate_);
    case 0xea:
    case 0xf0:
      remote_ = byte == 0xf0;
      return answer(kAck);
    case 0xeb:
      answer(kAck);
      return sendPacket();
    case 0xf2:
      answer(kAck);
      return answer(wheelMouse_ ? kWheelMouse : 0);
    case 0xf4:
    case 0xf5:
      reporting_ = byte == 0xf4;
      return answer(kAck);
    case 0xf6:
      setDefaults();
      return answer(kAck);
    case 0xff:
      setDefaults();
      wheelMouse_ = false;
      answer(kAck);
      answer(kTestPassed);
      return answer(0);
    default:
      return answer(kResend);
  }
}

void Ps2Mouse::parameter(std::uint8_t command, std::uint8_t value) {
  answer(kAck);
  if (command == 0xe8) {
    resolution_ = value & 3;
    return;
  }
  constexpr std::uint8_t kSequence[] = {200, 100, 80};
  rate_ = value;
  if (value == kSequence[knock_]) {
    ++knock_;
  } else {
    knock_ = value == kSequence[0] ? 1 : 0;
  }
  if (knock_ < sizeof kSequence) return;
  knock_ = 0;
  wheelMouse_ = true;
}

void Ps2Mouse::move(int dx, int dy, int wheel, unsigned buttons) {
  dx_ = std::clamp(dx_ + std::clamp(dx, -kMostKept, kMostKept), -kMostKept, kMostKept);
  dy_ = std::clamp(dy_ - std::clamp(dy, -kMostKept, kMostKept), -kMostKept, kMostKept);
  wheel_ = std::clamp(wheel_ + std::clamp(wheel, -100, 100), -100, 100);
  bool buttonsChanged = buttons_ != (buttons & 7);
  buttons_ = static_cast<std::uint8_t>(buttons & 7);
  if (!reporting_ || remote_) return;
  while ((dx_ != 0 || dy_ != 0 || wheel_ != 0 || buttonsChanged) && out_.hasRoom(4)) {
    sendPacket();
    buttonsChanged = false;
  }
}

void Ps2Mouse::sendPacket() {
  int dx = std::clamp(dx_, -kMostMotion, kMostMotion), dy = std::clamp(dy_, -kMostMotion, kMostMotion);
  dx_ -= dx;
  dy_ -= dy;
  answer(static_cast<std::uint8_t>(buttons_ | 8 | (dx < 0 ? 0x10 : 0) | (dy < 0 ? 0x20 : 0)));
  answer(static_cast<std::uint8_t>(dx));
  answer(static_cast<std::uint8_t>(dy));
  int wheel = std::clamp(wheel_, -7, 7);
  wheel_ -= wheel;
  if (wheelMouse_) answer(static_cast<std::uint8_t>(wheel));
}

}  // namespace lodge
