// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "device/ps2_queue.h"
#include "state/archive.h"

namespace lodge {

/// A PS/2 mouse with three buttons and a wheel (IBM PS/2 Technical Reference, "Mouse"; the wheel as the IntelliMouse
/// has it, after the sample rates 200, 100, 80). Its owner, the controller, locks.
class Ps2Mouse {
 public:
  static constexpr std::size_t kQueueBytes = 128;

  bool empty() const { return out_.empty(); }
  std::uint8_t take() { return out_.take(); }
  void receive(std::uint8_t byte);
  /// y downwards. Motion that the guest does not take at once is added up.
  void move(int dx, int dy, int wheel, unsigned buttons);
  void reset() { *this = {}; }
  void transfer(state::Archive& a);

 private:
  void answer(std::uint8_t byte) { out_.put(byte); }
  void parameter(std::uint8_t command, std::uint8_t value);
  void setDefaults();
  void sendPacket();

  Ps2Queue<kQueueBytes> out_;
  std::uint8_t pending_ = 0, resolution_ = 2, rate_ = 100, buttons_ = 0;
  std::uint8_t knock_ = 0;  ///< how far the sequence of sample rates has come
  bool reporting_ = false, remote_ = false, doubled_ = false, wheelMouse_ = false;
  int dx_ = 0, dy_ = 0, wheel_ = 0;
};

}  // namespace lodge
