// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <vector>

#include "device/pci.h"
#include "memory/guest_memory.h"
#include "usb/usb_device.h"
#include "usb/xhci_defs.h"

namespace lodge::usb {

/// An xHCI 1.0 host controller with kPorts ports of USB 2, and as many of USB 3 with nothing on them, one interrupter,
/// and contexts of 32 bytes. Devices hang on the ports, without hubs; control and interrupt IN endpoints are served.
/// Nothing is polled: a transfer that finds nothing waits for its device's wake. Doorbells are served on the vCPU's
/// thread.
class XhciController : public PciFunction, private IoDevice {
 public:
  static constexpr unsigned kPorts = 4, kSlots = 8;

  explicit XhciController(GuestMemory& memory);
  /// `port` 0 to kPorts - 1; before the guest runs. The device outlives the controller.
  void attach(unsigned port, Device& device);
  void reset() override;
  void transfer(state::Archive& a) override;
  /// BAR 0, for tests.
  IoDevice& registers() { return *this; }

 private:
  static constexpr unsigned kEndpoints = 32;  ///< by Device Context Index; 0 is unused
  /// A ring that goes round without an end is no reason to follow it for ever.
  static constexpr unsigned kMostTrbs = 1024;
  static constexpr std::size_t kMostWaiting = 256, kMostData = 64 << 10;
  static constexpr std::uint32_t kMostEvents = 4096;  ///< places in the event ring

  struct Ring {
    std::uint64_t at = 0;
    bool cycle = true;
  };
  struct Endpoint {
    xhci::EndpointState state = xhci::EndpointState::disabled;
    xhci::EndpointType type = xhci::EndpointType::control;
    std::uint64_t context = 0;  ///< in guest memory
    Ring ring;
    Setup setup{};  ///< of the control transfer under way
    std::vector<std::uint8_t> data;
    std::size_t given = 0;  ///< bytes of `data` that have been moved
    std::uint32_t eventData = 0;
    bool done = false;      ///< the control request was carried out
    bool busy = false;      ///< an interrupt transfer took a report from the device
    bool cutShort = false;  ///< it had less than there was room for
  };
  struct Slot {
    bool enabled = false;
    std::uint64_t context = 0;  ///< the device context in guest memory
    unsigned port = 0;          ///< from 1 on; 0: none yet
    std::array<Endpoint, kEndpoints> endpoints;
  };

  // xhci_controller.cpp: registers, events
  std::uint64_t read(std::uint64_t offset, unsigned size) override;
  void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
  std::uint32_t readLocked(unsigned offset) const;
  void writeLocked(unsigned offset, std::uint32_t value);
  void writeRuntimeLocked(unsigned offset, std::uint32_t value);
  void writePortLocked(unsigned port, std::uint32_t value);
  void resetPortLocked(unsigned port);
  void clearLocked();
  void portChangedLocked(unsigned port);
  void postLocked(xhci::Trb event);
  void flushLocked();
  void raiseLocked();
  void updateLineLocked();
  bool runningLocked() const { return (command_ & xhci::kRun) != 0; }
  void deviceWoke(unsigned port);
  // xhci_commands.cpp
  void runCommandsLocked();
  std::pair<xhci::Code, unsigned> commandLocked(const xhci::Trb& command);
  xhci::Code addressDeviceLocked(unsigned slot, const xhci::Trb& command);
  xhci::Code configureLocked(unsigned slot, const xhci::Trb& command);
  xhci::Code evaluateLocked(unsigned slot, const xhci::Trb& command);
  xhci::Code resetEndpointLocked(unsigned slot, unsigned endpoint);
  xhci::Code stopEndpointLocked(unsigned slot, unsigned endpoint);
  xhci::Code setDequeueLocked(unsigned slot, unsigned endpoint, const xhci::Trb& command);
  xhci::Code resetDeviceLocked(unsigned slot);
  bool startEndpointLocked(Slot& slot, unsigned endpoint, std::uint64_t inputContext);
  void storeEndpointLocked(Endpoint& endpoint);
  void storeSlotLocked(Slot& slot, xhci::SlotState state, std::uint32_t address);
  // xhci_state.cpp
  static void transferEndpoint(state::Archive& a, Endpoint& e);
  // xhci_transfers.cpp
  /// The TRB at the ring's place, over links; nothing where software has not put one. Leaves `ring` at it.
  std::optional<xhci::Trb> peekLocked(Ring& ring);
  void serveLocked(unsigned slot, unsigned endpoint);
  bool controlLocked(unsigned slot, unsigned endpoint, const xhci::Trb& trb);
  bool interruptInLocked(unsigned slot, unsigned endpoint, const xhci::Trb& trb);
  void transferEventLocked(unsigned slot, unsigned endpoint, const xhci::Trb& trb, xhci::Code code, std::uint32_t left);
  void endOfTrbLocked(unsigned slot, unsigned endpoint, const xhci::Trb& trb, xhci::Code code, std::uint32_t left);
  void haltLocked(unsigned slot, unsigned endpoint, const xhci::Trb& trb, xhci::Code code);
  Device* deviceLocked(const Slot& slot) { return slot.port == 0 ? nullptr : devices_.at(slot.port - 1); }

  GuestMemory& memory_;
  std::mutex mutex_;
  std::array<Device*, kPorts> devices_{};
  std::uint32_t command_ = 0, status_ = xhci::kHalted, notifications_ = 0, config_ = 0;
  std::uint64_t commandRing_ = 0, contexts_ = 0;
  Ring commands_;
  std::array<std::uint32_t, 2 * kPorts> portSc_{};
  std::uint32_t iman_ = 0, imod_ = 0, eventTableSize_ = 0;
  std::uint64_t eventTable_ = 0, eventDequeue_ = 0;
  std::uint64_t eventBase_ = 0;  ///< the event ring's segment
  std::uint32_t eventCount_ = 0, eventAt_ = 0;
  bool eventCycle_ = true;
  std::deque<xhci::Trb> waiting_;  ///< events for which the ring had no room
  std::array<Slot, kSlots + 1> slots_;
};

}  // namespace lodge::usb
