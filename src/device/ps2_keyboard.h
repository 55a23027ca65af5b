// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "device/ps2_queue.h"
#include "state/archive.h"

namespace lodge {

/// A PS/2 keyboard of 105 keys (IBM PS/2 Technical Reference, "Keyboards"): scan code sets 1 and 2, what the
/// controller's translation makes of set 2, and the commands that drivers give. Its owner, the controller, locks.
class Ps2Keyboard {
 public:
  /// Keys that come faster than the guest reads are lost beyond this many bytes.
  static constexpr std::size_t kQueueBytes = 128;

  bool empty() const { return out_.empty(); }
  std::uint8_t take() { return out_.take(); }
  /// A byte from the guest; `translated`: whether the controller turns set 2 into set 1.
  void receive(std::uint8_t byte, bool translated);
  /// `code`: of set 1, extended ones with 0xe000.
  void key(unsigned code, bool down, bool translated);
  void reset() { *this = {}; }
  void transfer(state::Archive& a);

 private:
  void answer(std::uint8_t byte) { out_.put(byte); }
  void parameter(std::uint8_t command, std::uint8_t value, bool translated);
  void setDefaults();

  Ps2Queue<kQueueBytes> out_;
  std::uint8_t pending_ = 0;  ///< the command that waits for its parameter
  std::uint8_t set_ = 2;
  bool scanning_ = true;
};

}  // namespace lodge
