// SPDX-License-Identifier: Apache-2.0
#include "usb/tablet.h"

#include <algorithm>
#include <string_view>

namespace lodge::usb {

namespace {
// USB 2.0, tables 9-4 and 9-5; HID 1.11, 7.1 and 7.2.
enum Request : std::uint8_t {
  getStatus = 0,
  clearFeature = 1,
  setFeature = 3,
  getDescriptor = 6,
  getConfiguration = 8,
  setConfiguration = 9,
  getInterface = 10,
  setInterface = 11,
};
enum HidRequest : std::uint8_t { getReport = 1, getIdle = 2, getProtocol = 3, setIdle = 10, setProtocol = 11 };
enum Descriptor : std::uint8_t { device = 1, configuration = 2, string = 3, hid = 0x21, report = 0x22 };
constexpr std::uint8_t kMaxPacket = 8, kConfiguration = 1, kInterval = 10;  // milliseconds

// HID 1.11, 6.2.2: items of a mouse with absolute axes.
constexpr std::uint8_t kReportDescriptor[] = {
    0x05, 0x01,        // usage page: generic desktop
    0x09, 0x02,        // usage: mouse
    0xa1, 0x01,        // collection: application
    0x09, 0x01,        //   usage: pointer
    0xa1, 0x00,        //   collection: physical
    0x05, 0x09,        //     usage page: buttons 1 to 3, a bit each
    0x19, 0x01,        //     usage minimum
    0x29, 0x03,        //     usage maximum
    0x15, 0x00,        //     logical minimum
    0x25, 0x01,        //     logical maximum
    0x95, 0x03,        //     report count
    0x75, 0x01,        //     report size
    0x81, 0x02,        //     input: data, variable, absolute
    0x95, 0x01,        //     five bits of padding
    0x75, 0x05,        //
    0x81, 0x01,        //     input: constant
    0x05, 0x01,        //     usage page: generic desktop
    0x09, 0x30,        //     usage: X
    0x09, 0x31,        //     usage: Y
    0x15, 0x00,        //     logical minimum
    0x26, 0xff, 0x7f,  //     logical maximum
    0x35, 0x00,        //     physical minimum
    0x46, 0xff, 0x7f,  //     physical maximum
    0x75, 0x10,        //     report size
    0x95, 0x02,        //     report count
    0x81, 0x02,        //     input: data, variable, absolute
    0x09, 0x38,        //     usage: wheel
    0x15, 0x81,        //     logical minimum: -127
    0x25, 0x7f,        //     logical maximum
    0x35, 0x00,        //     no physical unit
    0x45, 0x00,        //
    0x75, 0x08,        //     report size
    0x95, 0x01,        //     report count
    0x81, 0x06,        //     input: data, variable, relative
    0xc0, 0xc0,
};
constexpr std::uint8_t kHidDescriptor[] = {9, hid, 0x11, 0x01, 0, 1, report, sizeof kReportDescriptor, 0};
constexpr std::uint8_t kDeviceDescriptor[] = {
    18,   device, 0x00, 0x02,              // USB 2.0
    0,    0,      0,    kMaxPacket,        // the interface has the class
    0x09, 0x12,   0x01, 0x00,              // pid.codes' vendor id, its product for private use
    0x01, 0x00,   1,    2,          3, 1,  // release, strings, one configuration
};

std::vector<std::uint8_t> configurationDescriptor() {
  std::vector<std::uint8_t> all{9, configuration, 34, 0, 1, kConfiguration, 0, 0xa0, 50};  // wakes, 100 mA
  all.insert(all.end(), {9, 4, 0, 0, 1, 3, 0, 0, 0});                                      // the HID interface
  all.insert(all.end(), std::begin(kHidDescriptor), std::end(kHidDescriptor));
  all.insert(all.end(), {7, 5, 0x81, 3, kMaxPacket, 0, kInterval});  // endpoint 1 IN, interrupt
  return all;
}

bool stringDescriptor(unsigned index, std::vector<std::uint8_t>& data) {
  constexpr std::string_view kStrings[] = {"", "Lodge", "Lodge USB tablet", "1"};
  if (index == 0) {
    data = {4, string, 0x09, 0x04};  // US English
    return true;
  }
  if (index >= std::size(kStrings)) return false;
  data = {static_cast<std::uint8_t>(2 + 2 * kStrings[index].size()), string};
  for (char c : kStrings[index]) data.insert(data.end(), {static_cast<std::uint8_t>(c), 0});
  return true;
}
}  // namespace

std::vector<std::uint8_t> Tablet::Report::bytes() const {
  auto low = [](unsigned v) { return static_cast<std::uint8_t>(v); };
  return {buttons, low(x), low(x >> 8u), low(y), low(y >> 8u), low(static_cast<unsigned>(wheel))};
}

void Tablet::reset() {
  std::lock_guard lock(mutex_);
  configuration_ = idle_ = 0;
  protocol_ = 1;
  halted_ = false;
  waiting_.clear();
}

bool Tablet::control(const Setup& setup, std::vector<std::uint8_t>& data) {
  std::lock_guard lock(mutex_);
  if (setup.toHost()) data.clear();
  switch (setup.requestType & 0x60) {
    case 0x00:
      return standardLocked(setup, data);
    case 0x20:
      return classLocked(setup, data);
    default:
      return false;
  }
}

bool Tablet::standardLocked(const Setup& setup, std::vector<std::uint8_t>& data) {
  bool toEndpoint = (setup.requestType & 0x1f) == 2, toReports = toEndpoint && (setup.index & 0xff) == 0x81;
  switch (setup.request) {
    case getStatus:
      data = {static_cast<std::uint8_t>(toReports && halted_ ? 1 : 0), 0};
      return true;
    case clearFeature:
    case setFeature:
      if (toReports && setup.value == 0) halted_ = setup.request == setFeature;
      return true;
    case getConfiguration:
      data = {configuration_};
      return true;
    case setConfiguration:
      if (setup.value > kConfiguration) return false;
      configuration_ = static_cast<std::uint8_t>(setup.value);
      halted_ = false;
      waiting_.clear();
      return true;
    case getInterface:
      data = {0};
      return true;
    case setInterface:
      return setup.value == 0;
    case getDescriptor:
      break;
    default:
      return false;
  }
  switch (setup.value >> 8) {
    case device:
      data.assign(std::begin(kDeviceDescriptor), std::end(kDeviceDescriptor));
      return true;
    case configuration:
      data = configurationDescriptor();
      return true;
    case string:
      return stringDescriptor(setup.value & 0xff, data);
    case hid:
      data.assign(std::begin(kHidDescriptor), std::end(kHidDescriptor));
      return true;
    case report:
      data.assign(std::begin(kReportDescriptor), std::end(kReportDescriptor));
      return true;
    default:
      return false;  // a full-speed device has no qualifier of another speed
  }
}

bool Tablet::classLocked(const Setup& setup, std::vector<std::uint8_t>& data) {
  switch (setup.request) {
    case getReport:
      data = last_.bytes();
      return true;
    case getIdle:
      data = {idle_};
      return true;
    case getProtocol:
      data = {protocol_};
      return true;
    case setIdle:
      idle_ = static_cast<std::uint8_t>(setup.value >> 8);  // reports come on changes only, whatever it says
      return true;
    case setProtocol:
      protocol_ = static_cast<std::uint8_t>(setup.value);
      return true;
    default:
      return false;
  }
}

std::optional<std::vector<std::uint8_t>> Tablet::poll(unsigned endpoint) {
  std::lock_guard lock(mutex_);
  if (endpoint != 1 || halted_ || waiting_.empty()) return std::nullopt;
  std::vector<std::uint8_t> bytes = waiting_.front().bytes();
  waiting_.pop_front();
  return bytes;
}

bool Tablet::move(std::uint32_t x, std::uint32_t y, unsigned buttons, int wheel) {
  {
    std::lock_guard lock(mutex_);
    if (configuration_ == 0) return false;
    Report now{static_cast<std::uint8_t>((buttons & 1) | (buttons & 4) >> 1 | (buttons & 2) << 1),
               static_cast<std::uint16_t>(std::min<std::uint32_t>(x, kRange)),
               static_cast<std::uint16_t>(std::min<std::uint32_t>(y, kRange)),
               static_cast<std::int8_t>(std::clamp(wheel, -127, 127))};
    // Positions that nobody has read are replaced by newer ones; what buttons and wheel did is kept while there is
    // room.
    bool sameButtons = !waiting_.empty() && waiting_.back().buttons == now.buttons && waiting_.back().wheel == 0;
    if ((sameButtons && now.wheel == 0) || waiting_.size() == kMostWaiting) {
      waiting_.back() = now;
    } else {
      waiting_.push_back(now);
    }
    last_ = now;
    last_.wheel = 0;
  }
  wake_();
  return true;
}

void Tablet::transfer(state::Archive& a) {
  std::lock_guard lock(mutex_);
  auto report = [&a](Report& r) {
    auto wheel = static_cast<std::uint8_t>(r.wheel);
    a(r.buttons, r.x, r.y, wheel);
    r.wheel = static_cast<std::int8_t>(wheel);
  };
  a(configuration_, idle_, protocol_, halted_);
  a.require(configuration_ <= kConfiguration, "a USB tablet's configuration");
  report(last_);
  std::size_t count = a.count(waiting_.size(), kMostWaiting, "the reports of a USB tablet");
  if (a.loading()) waiting_.assign(count, {});
  for (Report& r : waiting_) report(r);
}

}  // namespace lodge::usb
