// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "device/a20_gate.h"
#include "device/interrupt.h"
#include "device/io_window.h"
#include "device/ps2_keyboard.h"
#include "device/ps2_mouse.h"
#include "state/archive.h"

namespace lodge {

/// The 8042 keyboard controller of a PC (IBM PS/2 Technical Reference, keyboard controller), with nothing plugged in or
/// with a keyboard and a mouse: commands that guests use to look for it, to open the A20 gate and to reset the machine,
/// and what the two devices send. What is sent to a missing keyboard or mouse is answered at once by "resend" with the
/// time-out bit, so that no driver waits.
/// Data at port 0x60, status and commands at port 0x64. Any thread.
class I8042 {
 public:
  /// `onReset` is called on the writing vCPU's thread, with no lock held.
  I8042(InterruptLine& irq1, std::function<void()> onReset);

  IoDevice& data() { return dataPort_; }        ///< 1 byte at 0x60
  IoDevice& command() { return commandPort_; }  ///< 1 byte at 0x64
  void reset();

  /// Plugs in a keyboard and a mouse, before the machine runs.
  void attachDevices(InterruptLine& irq12);
  /// Gives it the A20 gate to turn, before the machine runs.
  void attachA20(A20Gate& gate) { a20_ = &gate; }
  /// A key by its code of scan code set 1 (an extended one: 0xe0 first, so 0xe048), and whether it went down.
  void key(unsigned code, bool down);
  /// The mouse moved by (dx, dy), y downwards; wheel: notches, towards the user positive; buttons: 1 left, 2 right, 4
  /// middle.
  void mouse(int dx, int dy, int wheel, unsigned buttons);

  struct State {
    std::uint8_t control = 0x24;     ///< the command byte: auxiliary port off, system flag
    std::uint8_t outputPort = 0x03;  ///< not in reset, A20 open
    std::uint8_t data = 0, status = 0x14;
    std::uint8_t pendingCommand = 0;  ///< a command that waits for its data byte; 0 for none
  };
  State save() const;
  void restore(const State& state);
  /// Saves or loads the controller and what is plugged in.
  void transfer(state::Archive& a);

 private:
  std::uint8_t readData(unsigned);
  void writeData(unsigned, std::uint8_t value);
  std::uint8_t readStatus(unsigned);
  void writeCommand(unsigned, std::uint8_t value);
  bool commandLocked(std::uint8_t command);
  bool dataForCommandLocked(std::uint8_t command, std::uint8_t value);
  void answerLocked(std::uint8_t value, std::uint8_t statusBits = 0);
  void updateLineLocked();
  void setOutputPortLocked(std::uint8_t value);
  std::uint8_t outputPortLocked() const;
  void pumpLocked();

  InterruptLine& irq1_;
  InterruptLine* irq12_ = nullptr;
  A20Gate* a20_ = nullptr;
  std::unique_ptr<Ps2Keyboard> keyboard_;
  std::unique_ptr<Ps2Mouse> mouse_;
  std::function<void()> onReset_;
  ByteWindow<I8042, &I8042::readData, &I8042::writeData> dataPort_{*this};
  ByteWindow<I8042, &I8042::readStatus, &I8042::writeCommand> commandPort_{*this};
  mutable std::mutex mutex_;
  State state_;
};

}  // namespace lodge
