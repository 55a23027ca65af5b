// SPDX-License-Identifier: Apache-2.0
// Registers, ports and events; commands are in xhci_commands.cpp, transfers in xhci_transfers.cpp.
#include "usb/xhci_controller.h"

#include <algorithm>

namespace lodge::usb {

using namespace xhci;

namespace {
// An identity that drivers know as one without errata; they go by the class.
constexpr PciIdentity kIdentity{0x1b36, 0x000d, 1, 0x0c0330, 0x1af4, 0x1100};
constexpr std::uint32_t kSupportedProtocol = 2, kUsbName = 0x20425355;  // "USB "

/// Capability registers and extended capabilities (5.3, 7.2): two lists of ports, USB 2 first.
constexpr std::uint32_t kCapabilities[] = {
    0x0100'0000 | reg::operational,                                       // version 1.0
    XhciController::kSlots | 1u << 8 | 2 * XhciController::kPorts << 24,  // one interrupter
    0x0000'000f,                                                          // an event ring of one segment
    0,
    (0x20u / 4) << 16 | 1,  // 64-bit addresses; extended capabilities at 0x20
    reg::doorbells,
    reg::runtime,
    0,
    0x0200'0000 | 4u << 8 | kSupportedProtocol,
    kUsbName,
    XhciController::kPorts << 8 | 1,
    0,
    0x0300'0000 | kSupportedProtocol,
    kUsbName,
    XhciController::kPorts << 8 | (XhciController::kPorts + 1),
    0,
};
static_assert(sizeof kCapabilities == reg::operational);

void setHalf(std::uint64_t& field, bool high, std::uint32_t value) {
  unsigned shift = high ? 32 : 0;
  field = (field & ~(std::uint64_t{0xffff'ffff} << shift)) | std::uint64_t{value} << shift;
}
std::uint32_t half(std::uint64_t field, bool high) {
  return static_cast<std::uint32_t>(high ? field >> 32 : field);
}
}  // namespace

XhciController::XhciController(GuestMemory& memory) : PciFunction(kIdentity, "xhci"), memory_(memory) {
  addBar(0, BarKind::memory64, reg::end, *this);
  addMsix(4, 1);
  // PCI Express endpoint (PCIe 4.0, 7.5.3): a slot of its own, without link registers.
  const std::uint8_t express[]{0x92, 0x00, 0x00, 0x80, 0x00, 0x10, 0, 0, 0, 0};
  addCapability(0x10, express);
  useIntx();
  makeWritable(0x61, 0x3f);  // frame length adjustment
  clearLocked();
}

void XhciController::attach(unsigned port, Device& device) {
  std::lock_guard lock(mutex_);
  devices_.at(port) = &device;
  device.setWake([this, port] { deviceWoke(port); });
  clearLocked();
}

void XhciController::reset() {
  {
    std::lock_guard lock(mutex_);
    clearLocked();
    updateLineLocked();
  }
  PciFunction::reset();
  const std::uint8_t releaseAndFrames[]{0x30, 0x20};  // SBRN, FLADJ (5.2.3, 5.2.4)
  storeConfig(0x60, releaseAndFrames);
}

// What HCRST leaves (4.2, 5.4.1).
void XhciController::clearLocked() {
  command_ = 0;
  status_ = kHalted;
  notifications_ = config_ = 0;
  commandRing_ = contexts_ = 0;
  commands_ = {};
  iman_ = eventTableSize_ = 0;
  imod_ = 4000;
  eventTable_ = eventDequeue_ = eventBase_ = 0;
  eventCount_ = eventAt_ = 0;
  eventCycle_ = true;
  waiting_.clear();
  slots_ = {};
  for (unsigned n = 0; n < portSc_.size(); ++n) {
    portSc_[n] = port::power | port::rxDetect << port::linkShift;
    if (n >= kPorts || !devices_[n]) continue;
    devices_[n]->reset();
    portSc_[n] = port::power | port::polling << port::linkShift | port::connected | port::connectChange |
                 static_cast<std::uint32_t>(devices_[n]->speed()) << port::speedShift;
  }
}

std::uint64_t XhciController::read(std::uint64_t offset, unsigned size) {
  std::lock_guard lock(mutex_);
  auto at = static_cast<unsigned>(offset);
  if (size == 8) return readLocked(at & ~3u) | std::uint64_t{readLocked((at & ~3u) + 4)} << 32;
  std::uint64_t value = readLocked(at & ~3u) >> (8 * (at % 4));
  return size >= 4 ? value : value & ((1u << (8 * size)) - 1);
}

std::uint32_t XhciController::readLocked(unsigned offset) const {
  if (offset < reg::operational) return kCapabilities[offset / 4];
  if (offset >= reg::ports && offset < reg::ports + 16 * portSc_.size())
    return offset % 16 == 0 ? portSc_.at((offset - reg::ports) / 16) : 0;
  switch (offset) {
    case reg::usbCmd:
      return command_;
    case reg::usbSts:
      return status_;
    case reg::pageSize:
      return 1;
    case reg::dnCtrl:
      return notifications_;
    case reg::crcr:
      return runningLocked() ? 8 : 0;  // the pointer reads as zero
    case reg::dcbaap:
    case reg::dcbaap + 4:
      return half(contexts_, offset != reg::dcbaap);
    case reg::config:
      return config_;
    case reg::iman:
      return iman_;
    case reg::imod:
      return imod_;
    case reg::erstSize:
      return eventTableSize_;
    case reg::erstBase:
    case reg::erstBase + 4:
      return half(eventTable_, offset != reg::erstBase);
    case reg::erdp:
    case reg::erdp + 4:
      return half(eventDequeue_, offset != reg::erdp);
    default:
      return 0;
  }
}

void XhciController::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  if (offset % 4 != 0 || size < 4) return;
  std::lock_guard lock(mutex_);
  for (unsigned n = 0; n < size / 4; ++n)
    writeLocked(static_cast<unsigned>(offset) + 4 * n, static_cast<std::uint32_t>(value >> (32 * n)));
}

void XhciController::writeLocked(unsigned offset, std::uint32_t value) {
  if (offset >= reg::doorbells) {
    unsigned index = (offset - reg::doorbells) / 4;
    if (!runningLocked() || index > kSlots) return;
    if (index == 0) return runCommandsLocked();
    return serveLocked(index, value & 0xff);
  }
  if (offset >= reg::runtime) return writeRuntimeLocked(offset, value);
  if (offset >= reg::ports) {
    unsigned index = (offset - reg::ports) / 16;
    if (offset % 16 == 0 && index < portSc_.size()) writePortLocked(index, value);
    return;
  }
  switch (offset) {
    case reg::usbCmd: {
      if ((value & kReset) != 0) {
        clearLocked();
        return updateLineLocked();
      }
      bool started = (value & kRun) != 0 && !runningLocked();
      command_ = value & 0xc0d;
      status_ = runningLocked() ? status_ & ~kHalted : status_ | kHalted;
      if (started) {
        for (unsigned n = 0; n < portSc_.size(); ++n) {
          if ((portSc_[n] & port::changes) != 0) portChangedLocked(n);
        }
      }
      return updateLineLocked();
    }
    case reg::usbSts:
      status_ &= ~(value & (kEventInterrupt | kPortChange | 0x404));
      return updateLineLocked();
    case reg::dnCtrl:
      notifications_ = value & 0xffff;
      break;
    case reg::crcr:
    case reg::crcr + 4:
      // Stop and abort: commands end before their doorbell's write does.
      setHalf(commandRing_, offset != reg::crcr, value);
      commands_ = {commandRing_ & ~std::uint64_t{63}, (commandRing_ & 1) != 0};
      break;
    case reg::dcbaap:
    case reg::dcbaap + 4:
      setHalf(contexts_, offset != reg::dcbaap, value);
      contexts_ &= ~std::uint64_t{63};
      break;
    case reg::config:
      config_ = value & 0xff;
      break;
    default:
      break;
  }
}

void XhciController::writeRuntimeLocked(unsigned offset, std::uint32_t value) {
  switch (offset) {
    case reg::iman:
      iman_ = (iman_ & ~kEnabled & ~(value & kPending)) | (value & kEnabled);
      return updateLineLocked();
    case reg::imod:
      imod_ = value;
      break;
    case reg::erstSize:
      eventTableSize_ = value & 0xffff;
      break;
    case reg::erstBase:
      setHalf(eventTable_, false, value & ~63u);
      break;
    case reg::erstBase + 4: {
      // The table is read when its address is complete (4.9.4).
      setHalf(eventTable_, true, value);
      std::uint64_t entry[2]{};
      if (!memory_.readObject(Gpa{eventTable_}, entry) || eventTableSize_ == 0) break;
      eventBase_ = entry[0] & ~std::uint64_t{63};
      eventCount_ = std::min<std::uint32_t>(entry[1] & 0xffff, kMostEvents);
      eventAt_ = 0;
      eventCycle_ = true;
      break;
    }
    case reg::erdp:
    case reg::erdp + 4: {
      bool low = offset == reg::erdp, busy = (eventDequeue_ & kHandlerBusy) != 0;
      setHalf(eventDequeue_, !low, value);
      if (low)
        eventDequeue_ = (eventDequeue_ & ~kHandlerBusy) | (busy && (value & kHandlerBusy) == 0 ? kHandlerBusy : 0);
      flushLocked();
      // Events that nobody has seen ask for attention again.
      std::uint64_t taken = eventDequeue_ & ~std::uint64_t{15};
      if (low && (value & kHandlerBusy) != 0 && eventCount_ != 0 && taken != eventBase_ + 16 * std::uint64_t{eventAt_})
        raiseLocked();
      break;
    }
    default:
      break;
  }
}

void XhciController::writePortLocked(unsigned index, std::uint32_t value) {
  std::uint32_t& sc = portSc_[index];
  sc &= ~(value & port::changes);
  sc = (sc & ~port::wakeBits) | (value & port::wakeBits);
  if ((sc & port::connected) == 0) return;
  if ((value & port::reset) != 0) return resetPortLocked(index);
  if ((value & port::enabled) != 0) sc &= ~port::enabled;
  if ((value & port::linkWrite) == 0) return;
  std::uint32_t before = (sc & port::linkMask) >> port::linkShift, link = (value & port::linkMask) >> port::linkShift;
  if (link != port::u0 && link != port::u3 && link != port::resume) return;
  sc = (sc & ~port::linkMask) | link << port::linkShift;
  if (link == port::u0 && before != port::u0) {
    sc |= port::linkChange;
    portChangedLocked(index);
  }
}

void XhciController::resetPortLocked(unsigned index) {
  if (index < kPorts && devices_[index]) devices_[index]->reset();
  std::uint32_t& sc = portSc_[index];
  sc = (sc & ~port::linkMask) | port::enabled | port::resetChange;
  portChangedLocked(index);
}

void XhciController::portChangedLocked(unsigned index) {
  status_ |= kPortChange;
  if (!runningLocked()) return;
  postLocked({std::uint64_t{index + 1} << 24, static_cast<std::uint32_t>(Code::success) << 24, trb::portEvent << 10});
}

void XhciController::postLocked(Trb event) {
  if (waiting_.size() == kMostWaiting) {
    // A driver that does not take its events has lost some.
    status_ |= kHostError;
    return;
  }
  waiting_.push_back(event);
  flushLocked();
}

/// Moves events to the ring while there is room: it is full when one more would reach what software has taken (4.9.4).
void XhciController::flushLocked() {
  bool stored = false;
  while (!waiting_.empty() && eventCount_ != 0) {
    std::uint32_t next = eventAt_ + 1 == eventCount_ ? 0 : eventAt_ + 1;
    if (eventBase_ + 16 * std::uint64_t{next} == (eventDequeue_ & ~std::uint64_t{15})) break;
    Trb event = waiting_.front();
    waiting_.pop_front();
    event.control = (event.control & ~1u) | (eventCycle_ ? 1 : 0);
    (void)memory_.writeObject(Gpa{eventBase_ + 16 * std::uint64_t{eventAt_}}, event);
    eventAt_ = next;
    if (next == 0) eventCycle_ = !eventCycle_;
    stored = true;
  }
  if (stored) raiseLocked();
}

void XhciController::raiseLocked() {
  bool busy = (eventDequeue_ & kHandlerBusy) != 0;
  eventDequeue_ |= kHandlerBusy;
  iman_ |= kPending;
  status_ |= kEventInterrupt;
  if (busy) return;
  if ((iman_ & kEnabled) != 0 && (command_ & kInterruptEnable) != 0 && msixEnabled()) {
    iman_ &= ~kPending;  // messages acknowledge themselves (4.17.2)
    signalMsix(0);
  }
  updateLineLocked();
}

void XhciController::updateLineLocked() {
  setIntx((iman_ & (kPending | kEnabled)) == (kPending | kEnabled) && (command_ & kInterruptEnable) != 0);
}

void XhciController::deviceWoke(unsigned port) {
  std::lock_guard lock(mutex_);
  if (!runningLocked()) return;
  for (unsigned slot = 1; slot <= kSlots; ++slot) {
    if (slots_[slot].port != port + 1) continue;
    for (unsigned endpoint = 2; endpoint < kEndpoints; ++endpoint) {
      if (slots_[slot].endpoints[endpoint].state == EndpointState::running) serveLocked(slot, endpoint);
    }
  }
}

}  // namespace lodge::usb
