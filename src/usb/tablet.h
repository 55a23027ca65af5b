// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <mutex>

#include "state/archive.h"
#include "usb/usb_device.h"

namespace lodge::usb {

/// An absolute pointer with three buttons and a wheel: a device of the HID class (HID 1.11) at full speed, whose
/// reports are buttons (left, right, middle), X and Y of 16 bits, and a wheel of 8.
class Tablet : public Device {
 public:
  static constexpr std::uint16_t kRange = 0x7fff;  ///< positions are 0 to this, in both directions

  Speed speed() const override { return Speed::full; }
  void reset() override;
  bool control(const Setup& setup, std::vector<std::uint8_t>& data) override;
  std::optional<std::vector<std::uint8_t>> poll(unsigned endpoint) override;

  /// Saves or loads it. While no vCPU runs.
  void transfer(state::Archive& a);

  /// The pointer is at (x, y) of kRange; buttons: 1 left, 2 middle, 4 right; wheel: notches, away from the user
  /// positive. False: no driver has configured the device. Any thread.
  bool move(std::uint32_t x, std::uint32_t y, unsigned buttons, int wheel);

 private:
  struct Report {
    std::uint8_t buttons = 0;
    std::uint16_t x = 0, y = 0;
    std::int8_t wheel = 0;
    std::vector<std::uint8_t> bytes() const;
  };
  static constexpr std::size_t kMostWaiting = 32;

  bool standardLocked(const Setup& setup, std::vector<std::uint8_t>& data);
  bool classLocked(const Setup& setup, std::vector<std::uint8_t>& data);

  std::mutex mutex_;
  std::uint8_t configuration_ = 0, idle_ = 0, protocol_ = 1;
  bool halted_ = false;
  Report last_;
  std::deque<Report> waiting_;
};

}  // namespace lodge::usb
