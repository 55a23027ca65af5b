// SPDX-License-Identifier: Apache-2.0
// How an xHCI controller is saved and loaded: doorbells are served before their write ends, so that nothing is under
// way but transfers that wait for a device.
#include "usb/xhci_controller.h"

namespace lodge::usb {

using namespace xhci;
using state::Archive;

void XhciController::transferEndpoint(Archive& a, Endpoint& e) {
  a(e.state, e.type, e.context, e.ring.at, e.ring.cycle);
  a(e.setup.requestType, e.setup.request, e.setup.value, e.setup.index, e.setup.length);
  a(e.data, e.given, e.eventData, e.done, e.busy, e.cutShort);
  a.require(e.state <= EndpointState::error, "the state of a USB endpoint");
  a.require(e.data.size() <= kMostData && e.given <= e.data.size(), "the data of a USB transfer");
}

void XhciController::transfer(Archive& a) {
  PciFunction::transfer(a);
  std::lock_guard lock(mutex_);
  a(command_, status_, notifications_, config_, commandRing_, contexts_, commands_.at, commands_.cycle, portSc_);
  a(iman_, imod_, eventTableSize_, eventTable_, eventDequeue_, eventBase_, eventCount_, eventAt_, eventCycle_);
  a.require(eventCount_ <= kMostEvents && (eventCount_ == 0 ? eventAt_ == 0 : eventAt_ < eventCount_),
            "an xHCI controller's event ring");
  std::size_t events = a.count(waiting_.size(), kMostWaiting, "the events of an xHCI controller");
  if (a.loading()) waiting_.assign(events, {});
  for (Trb& event : waiting_) a(event.parameter, event.status, event.control);
  for (Slot& slot : slots_) {
    a(slot.enabled, slot.context, slot.port);
    a.require(slot.port <= kPorts, "the port of a USB slot");
    for (Endpoint& endpoint : slot.endpoints) transferEndpoint(a, endpoint);
  }
  if (a.loading() && !a.ok()) clearLocked();
}

}  // namespace lodge::usb
