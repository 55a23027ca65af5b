// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

namespace lodge::usb {

/// A request on the control endpoint (USB 2.0, 9.3).
struct Setup {
  std::uint8_t requestType, request;
  std::uint16_t value, index, length;
  bool toHost() const { return (requestType & 0x80) != 0; }
};
static_assert(sizeof(Setup) == 8);

/// Ids of the xHC's default protocol speeds (xHCI 1.1, 7.2.2.1.1).
enum class Speed : std::uint8_t { full = 1, low = 2, high = 3 };

/// A device on the bus as its controller sees it. The controller calls one function at a time.
class Device {
 public:
  virtual ~Device() = default;
  virtual Speed speed() const = 0;
  /// Bus reset: address 0, not configured.
  virtual void reset() = 0;
  /// A whole control transfer; `data` came from the host, or goes to it (the controller cuts it to setup.length).
  /// False: STALL.
  virtual bool control(const Setup& setup, std::vector<std::uint8_t>& data) = 0;
  /// What an IN endpoint (1 to 15) has to say now; nothing: NAK.
  virtual std::optional<std::vector<std::uint8_t>> poll(unsigned endpoint) = 0;
  /// Called by the device, on any thread and without its locks held, when poll() has something new.
  void setWake(std::function<void()> wake) { wake_ = std::move(wake); }

 protected:
  std::function<void()> wake_ = [] {};
};

}  // namespace lodge::usb
