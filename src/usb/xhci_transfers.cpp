// SPDX-License-Identifier: Apache-2.0
// Transfer rings (xHCI 1.1, 4.9 to 4.11): control and interrupt IN endpoints.
#include <algorithm>
#include <cstring>

#include "usb/xhci_controller.h"

namespace lodge::usb {

using namespace xhci;

namespace {
constexpr std::uint32_t kLengthMask = 0x1ffff;
}

std::optional<Trb> XhciController::peekLocked(Ring& ring) {
  for (unsigned links = 0; links < 16; ++links) {
    Trb trb{};
    if (!memory_.readObject(Gpa{ring.at}, trb) || trb.cycle() != ring.cycle) return std::nullopt;
    if (trb.type() != trb::link) return trb;
    ring.at = trb.parameter & ~std::uint64_t{15};
    if ((trb.control & trb::toggleCycle) != 0) ring.cycle = !ring.cycle;
  }
  return std::nullopt;
}

void XhciController::serveLocked(unsigned number, unsigned endpoint) {
  Slot& slot = slots_[number];
  if (endpoint == 0 || endpoint >= kEndpoints || !slot.enabled || !deviceLocked(slot)) return;
  Endpoint& e = slot.endpoints[endpoint];
  if (e.state == EndpointState::stopped) {
    e.state = EndpointState::running;
    storeEndpointLocked(e);
  }
  for (unsigned n = 0; n < kMostTrbs && e.state == EndpointState::running; ++n) {
    auto trb = peekLocked(e.ring);
    if (!trb) return;
    bool went = false;
    if (e.type == EndpointType::control) {
      went = controlLocked(number, endpoint, *trb);
    } else if (e.type == EndpointType::interruptIn) {
      went = interruptInLocked(number, endpoint, *trb);
    } else {
      haltLocked(number, endpoint, *trb, Code::stall);  // no device has such an endpoint
    }
    if (!went) return;
    e.ring.at += sizeof(Trb);
  }
}

/// One TRB of a control transfer (4.11.2.2). The request is carried out when its data go to the host, or when all that
/// came from it is there. False: the ring stays where it is.
bool XhciController::controlLocked(unsigned number, unsigned endpoint, const Trb& trb) {
  Endpoint& e = slots_[number].endpoints[endpoint];
  Device& device = *deviceLocked(slots_[number]);
  std::uint32_t length = trb.status & kLengthMask;
  auto carryOut = [&] {
    if (e.done) return true;
    e.done = true;
    // The controller gives addresses itself.
    if (e.setup.requestType == 0 && e.setup.request == 5) return true;
    if (!device.control(e.setup, e.data)) return false;
    if (e.setup.toHost() && e.data.size() > e.setup.length) e.data.resize(e.setup.length);
    return true;
  };
  switch (trb.type()) {
    case trb::setup:
      std::memcpy(&e.setup, &trb.parameter, sizeof e.setup);
      e.data.clear();
      e.given = 0;
      e.eventData = 0;
      e.done = e.cutShort = false;
      endOfTrbLocked(number, endpoint, trb, Code::success, 0);
      return true;
    case trb::normal:
    case trb::data: {
      std::uint32_t moved = 0;
      if (e.setup.toHost()) {
        if (!carryOut()) break;
        moved = static_cast<std::uint32_t>(std::min<std::size_t>(length, e.data.size() - e.given));
        auto from = std::as_bytes(std::span(e.data)).subspan(e.given, moved);
        if (!memory_.write(Gpa{trb.parameter}, from)) break;
        e.given += moved;
      } else {
        std::size_t before = e.data.size();
        if (before + length > kMostData) break;
        e.data.resize(before + length);
        auto to = std::as_writable_bytes(std::span(e.data)).subspan(before);
        if ((trb.control & trb::immediate) != 0) {
          std::memcpy(to.data(), &trb.parameter, std::min<std::size_t>(to.size(), sizeof trb.parameter));
        } else if (!memory_.read(Gpa{trb.parameter}, to)) {
          break;
        }
        moved = length;
      }
      e.eventData += moved;
      e.cutShort = e.cutShort || moved < length;
      endOfTrbLocked(number, endpoint, trb, moved < length ? Code::shortPacket : Code::success, length - moved);
      return true;
    }
    case trb::eventData:
    case trb::noOp:
      endOfTrbLocked(number, endpoint, trb, e.cutShort ? Code::shortPacket : Code::success, 0);
      return true;
    case trb::status:
      if (!carryOut()) break;
      e.cutShort = false;
      endOfTrbLocked(number, endpoint, trb, Code::success, 0);
      return true;
    default:
      haltLocked(number, endpoint, trb, Code::trbError);
      return false;
  }
  haltLocked(number, endpoint, trb, Code::stall);
  return false;
}

bool XhciController::interruptInLocked(unsigned number, unsigned endpoint, const Trb& trb) {
  Endpoint& e = slots_[number].endpoints[endpoint];
  std::uint32_t length = trb.status & kLengthMask;
  if (trb.type() == trb::eventData || trb.type() == trb::noOp) {
    endOfTrbLocked(number, endpoint, trb, e.cutShort ? Code::shortPacket : Code::success, 0);
    e.busy = e.busy && (trb.control & trb::chain) != 0;
    return true;
  }
  if (trb.type() != trb::normal) {
    haltLocked(number, endpoint, trb, Code::trbError);
    return false;
  }
  if (!e.busy) {
    auto report = deviceLocked(slots_[number])->poll(endpoint / 2);
    if (!report) return false;
    e.data = std::move(*report);
    e.given = 0;
    e.eventData = 0;
    e.busy = true;
    e.cutShort = false;
  }
  auto moved = static_cast<std::uint32_t>(std::min<std::size_t>(length, e.data.size() - e.given));
  if (!memory_.write(Gpa{trb.parameter}, std::as_bytes(std::span(e.data)).subspan(e.given, moved))) {
    haltLocked(number, endpoint, trb, Code::trbError);
    return false;
  }
  e.given += moved;
  e.eventData += moved;
  bool firstShort = moved < length && !e.cutShort;
  e.cutShort = e.cutShort || moved < length;
  e.busy = (trb.control & trb::chain) != 0;
  endOfTrbLocked(number, endpoint, trb, firstShort ? Code::shortPacket : Code::success, length - moved);
  return true;
}

/// The event of a TRB that asks for one (4.11.3.1): at its end, or because it had less than its room.
void XhciController::endOfTrbLocked(unsigned number, unsigned endpoint, const Trb& trb, Code code, std::uint32_t left) {
  bool wanted = (trb.control & trb::onCompletion) != 0;
  wanted = wanted || (code == Code::shortPacket && (trb.control & trb::shortPacket) != 0);
  if (wanted) transferEventLocked(number, endpoint, trb, code, left);
}

void XhciController::transferEventLocked(unsigned number, unsigned endpoint, const Trb& trb, Code code,
                                         std::uint32_t left) {
  Endpoint& e = slots_[number].endpoints[endpoint];
  std::uint32_t control = number << 24 | endpoint << 16 | trb::transferEvent << 10;
  std::uint64_t parameter = e.ring.at;
  if (trb.type() == trb::eventData) {
    parameter = trb.parameter;
    control |= 4;  // event data
    left = e.eventData & 0xffffff;
    e.eventData = 0;
  }
  postLocked({parameter, static_cast<std::uint32_t>(code) << 24 | left, control});
}

void XhciController::haltLocked(unsigned number, unsigned endpoint, const Trb& trb, Code code) {
  Endpoint& e = slots_[number].endpoints[endpoint];
  transferEventLocked(number, endpoint, trb, code, trb.status & kLengthMask);
  e.state = EndpointState::halted;
  e.busy = e.done = false;
  storeEndpointLocked(e);
}

}  // namespace lodge::usb
