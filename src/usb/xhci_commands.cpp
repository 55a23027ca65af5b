// SPDX-License-Identifier: Apache-2.0
// The command ring (xHCI 1.1, 4.6).
#include <algorithm>

#include "usb/xhci_controller.h"

namespace lodge::usb {

using namespace xhci;

namespace {
constexpr std::uint64_t kContextBytes = sizeof(Context);

std::uint64_t dequeueOf(const Context& c) {
  return c.words[2] | std::uint64_t{c.words[3]} << 32;
}
}  // namespace

void XhciController::runCommandsLocked() {
  for (unsigned n = 0; n < kMostTrbs && (status_ & kHostError) == 0; ++n) {
    auto command = peekLocked(commands_);
    if (!command) return;
    std::uint64_t at = commands_.at;
    auto [code, slot] = commandLocked(*command);
    commands_.at += sizeof(Trb);
    postLocked({at, static_cast<std::uint32_t>(code) << 24, slot << 24 | trb::commandEvent << 10});
  }
}

/// The completion code, and the slot that the event names.
std::pair<Code, unsigned> XhciController::commandLocked(const Trb& command) {
  unsigned slot = command.control >> 24, endpoint = command.control >> 16 & 31, type = command.type();
  if (type == trb::noOpCommand) return {Code::success, 0};
  if (type == trb::enableSlot) {
    for (unsigned free = 1; free <= std::min<unsigned>(kSlots, config_); ++free) {
      if (slots_[free].enabled) continue;
      slots_[free] = {};
      slots_[free].enabled = true;
      return {Code::success, free};
    }
    return {Code::noSlots, 0};
  }
  if (type < trb::disableSlot || type > trb::resetDevice) return {Code::trbError, slot};
  if (slot == 0 || slot > kSlots || !slots_[slot].enabled) return {Code::slotNotEnabled, slot};
  switch (type) {
    case trb::disableSlot:
      slots_[slot] = {};
      return {Code::success, slot};
    case trb::addressDevice:
      return {addressDeviceLocked(slot, command), slot};
    case trb::configureEndpoint:
      return {configureLocked(slot, command), slot};
    case trb::evaluateContext:
      return {evaluateLocked(slot, command), slot};
    case trb::resetEndpoint:
      return {resetEndpointLocked(slot, endpoint), slot};
    case trb::stopEndpoint:
      return {stopEndpointLocked(slot, endpoint), slot};
    case trb::setDequeue:
      return {setDequeueLocked(slot, endpoint, command), slot};
    default:
      return {resetDeviceLocked(slot), slot};
  }
}

Code XhciController::addressDeviceLocked(unsigned number, const Trb& command) {
  Slot& slot = slots_[number];
  std::uint64_t input = command.parameter & ~std::uint64_t{15};
  Context control{}, context{};
  if (!memory_.readObject(Gpa{input}, control) || !memory_.readObject(Gpa{input + kContextBytes}, context) ||
      control.words[0] != 0 || (control.words[1] & 3) != 3)
    return Code::trbError;
  unsigned port = context.words[1] >> 16 & 0xff;
  bool routed = (context.words[0] & 0xfffff) != 0;
  if (port == 0 || port > kPorts || routed || !devices_.at(port - 1)) return Code::parameterError;
  std::uint64_t output = 0;
  if (!memory_.readObject(Gpa{contexts_ + 8 * std::uint64_t{number}}, output)) return Code::trbError;
  slot.context = output & ~std::uint64_t{63};
  slot.port = port;
  if (!memory_.writeObject(Gpa{slot.context}, context) || !startEndpointLocked(slot, 1, input + 2 * kContextBytes))
    return Code::parameterError;
  bool silent = (command.control & trb::blockAddress) != 0;
  storeSlotLocked(slot, silent ? SlotState::default_ : SlotState::addressed, silent ? 0 : number);
  return Code::success;
}

Code XhciController::configureLocked(unsigned number, const Trb& command) {
  Slot& slot = slots_[number];
  if (slot.port == 0) return Code::contextState;
  auto drop = [&](unsigned endpoint) {
    Endpoint& e = slot.endpoints[endpoint];
    if (e.state == EndpointState::disabled) return;
    e.state = EndpointState::disabled;
    storeEndpointLocked(e);
    e = {};
  };
  if ((command.control & trb::deconfigure) != 0) {
    for (unsigned endpoint = 2; endpoint < kEndpoints; ++endpoint) drop(endpoint);
    storeSlotLocked(slot, SlotState::addressed, number);
    return Code::success;
  }
  std::uint64_t input = command.parameter & ~std::uint64_t{15};
  Context control{}, context{}, own{};
  if (!memory_.readObject(Gpa{input}, control) || !memory_.readObject(Gpa{input + kContextBytes}, context) ||
      (control.words[0] & 3) != 0 || (control.words[1] & 2) != 0)
    return Code::trbError;
  for (unsigned endpoint = 2; endpoint < kEndpoints; ++endpoint) {
    bool add = (control.words[1] >> endpoint & 1) != 0;
    if (add || (control.words[0] >> endpoint & 1) != 0) drop(endpoint);
    if (add && !startEndpointLocked(slot, endpoint, input + (endpoint + 1) * kContextBytes))
      return Code::parameterError;
  }
  if (!memory_.readObject(Gpa{slot.context}, own)) return Code::trbError;
  own.words[0] = (own.words[0] & ~(31u << 27)) | (context.words[0] & 31u << 27);
  (void)memory_.writeObject(Gpa{slot.context}, own);
  storeSlotLocked(slot, SlotState::configured, number);
  return Code::success;
}

// Only what a driver learns late: the control endpoint's packets, and the latency that it allows (4.6.7).
Code XhciController::evaluateLocked(unsigned number, const Trb& command) {
  Slot& slot = slots_[number];
  std::uint64_t input = command.parameter & ~std::uint64_t{15};
  Context control{}, context{}, own{};
  if (slot.port == 0) return Code::contextState;
  if (!memory_.readObject(Gpa{input}, control) || control.words[0] != 0) return Code::trbError;
  if ((control.words[1] & 1) != 0 && memory_.readObject(Gpa{input + kContextBytes}, context) &&
      memory_.readObject(Gpa{slot.context}, own)) {
    own.words[1] = (own.words[1] & ~0xffffu) | (context.words[1] & 0xffff);
    (void)memory_.writeObject(Gpa{slot.context}, own);
  }
  std::uint64_t at = slot.endpoints[1].context;
  if ((control.words[1] & 2) != 0 && memory_.readObject(Gpa{input + 2 * kContextBytes}, context) &&
      memory_.readObject(Gpa{at}, own)) {
    own.words[1] = (own.words[1] & 0xffffu) | (context.words[1] & 0xffff0000);
    (void)memory_.writeObject(Gpa{at}, own);
  }
  return Code::success;
}

Code XhciController::resetEndpointLocked(unsigned number, unsigned endpoint) {
  Endpoint& e = slots_[number].endpoints[endpoint];
  if (endpoint == 0 || e.state != EndpointState::halted) return Code::contextState;
  e.state = EndpointState::stopped;
  storeEndpointLocked(e);
  return Code::success;
}

Code XhciController::stopEndpointLocked(unsigned number, unsigned endpoint) {
  Endpoint& e = slots_[number].endpoints[endpoint];
  if (endpoint == 0 || e.state != EndpointState::running) return Code::contextState;
  // A transfer that waits for its device is under way, and its event says where it stopped (4.6.9).
  if (auto waits = peekLocked(e.ring))
    transferEventLocked(number, endpoint, *waits, Code::stopped, waits->status & 0x1ffff);
  e.state = EndpointState::stopped;
  storeEndpointLocked(e);
  return Code::success;
}

Code XhciController::setDequeueLocked(unsigned number, unsigned endpoint, const Trb& command) {
  Endpoint& e = slots_[number].endpoints[endpoint];
  if (endpoint == 0 || (e.state != EndpointState::stopped && e.state != EndpointState::error))
    return Code::contextState;
  e.ring = {command.parameter & ~std::uint64_t{15}, (command.parameter & 1) != 0};
  e.data.clear();
  e.busy = e.done = false;
  storeEndpointLocked(e);
  return Code::success;
}

Code XhciController::resetDeviceLocked(unsigned number) {
  Slot& slot = slots_[number];
  if (slot.port == 0) return Code::contextState;
  for (unsigned endpoint = 2; endpoint < kEndpoints; ++endpoint) {
    Endpoint& e = slot.endpoints[endpoint];
    if (e.state == EndpointState::disabled) continue;
    e.state = EndpointState::disabled;
    storeEndpointLocked(e);
    e = {};
  }
  storeSlotLocked(slot, SlotState::default_, 0);
  return Code::success;
}

bool XhciController::startEndpointLocked(Slot& slot, unsigned number, std::uint64_t inputContext) {
  Context context{};
  if (!memory_.readObject(Gpa{inputContext}, context)) return false;
  Endpoint& e = slot.endpoints[number];
  e = {};
  e.state = EndpointState::running;
  e.type = static_cast<EndpointType>(context.words[1] >> 3 & 7);
  e.context = slot.context + number * kContextBytes;
  e.ring = {dequeueOf(context) & ~std::uint64_t{15}, (dequeueOf(context) & 1) != 0};
  if (!memory_.writeObject(Gpa{e.context}, context)) return false;
  storeEndpointLocked(e);
  return true;
}

/// State and place of an endpoint, as software sees them in its context.
void XhciController::storeEndpointLocked(Endpoint& e) {
  Context context{};
  if (!memory_.readObject(Gpa{e.context}, context)) return;
  context.words[0] = (context.words[0] & ~7u) | static_cast<std::uint32_t>(e.state);
  context.words[2] = static_cast<std::uint32_t>(e.ring.at) | (e.ring.cycle ? 1 : 0);
  context.words[3] = static_cast<std::uint32_t>(e.ring.at >> 32);
  (void)memory_.writeObject(Gpa{e.context}, context);
}

void XhciController::storeSlotLocked(Slot& slot, SlotState state, std::uint32_t address) {
  Context context{};
  if (!memory_.readObject(Gpa{slot.context}, context)) return;
  context.words[3] = static_cast<std::uint32_t>(state) << 27 | address;
  (void)memory_.writeObject(Gpa{slot.context}, context);
}

}  // namespace lodge::usb
