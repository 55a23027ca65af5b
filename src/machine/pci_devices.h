// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "base/event_loop.h"
#include "device/pci.h"
#include "machine/chipset.h"
#include "machine/config.h"
#include "machine/pc_board.h"
#include "machine/pci_slots.h"
#include "machine/pci_storage.h"
#include "machine/removable_drives.h"
#include "usb/tablet.h"
#include "usb/xhci_controller.h"
#include "virtio/balloon.h"
#include "virtio/block.h"
#include "virtio/console.h"
#include "virtio/net.h"
#include "virtio/pci_transport.h"

namespace lodge {

/// The board's PCI bus and the virtio devices on it, as the configuration asks for them.
class PciDevices {
 public:
  /// Opens disks and networks. Errors: theirs.
  static Result<std::unique_ptr<PciDevices>> create(const MachineConfig& config, EventLoop& loop, GuestMemory& memory,
                                                    IoBus& ports, IoBus& mmio, Chipset& chipset, FlashFiles flash,
                                                    virtio::ConsoleDevice::Output consoleOutput);
  void reset();
  /// Ends what is under way, and brings disks to stable storage, their images as they would be closed: 0, or a positive
  /// errno value. While no vCPU runs; I/O thread.
  int quiesce();
  /// Whether no device has a request under way that reads or writes guest memory. Waits for nothing.
  bool isQuiet();
  /// Saves or loads the PCI host and all functions.
  void transfer(state::Snapshot& snapshot);
  /// What was loaded goes on: devices look at their queues. Before vCPUs run; I/O thread.
  void resume();
  Display* display() { return pc_ ? pc_->display() : nullptr; }
  /// PcDisplay::setBeforeLook(), if there is a screen.
  void setBeforeLook(std::function<void()> beforeLook) {
    if (pc_ && pc_->display()) pc_->display()->setBeforeLook(std::move(beforeLook));
  }
  RemovableDrives& drives() { return drives_; }
  /// Whether the host's kernel moves frames to and from guest memory on its own.
  bool usesVhost() const;
  virtio::BalloonDevice* balloon() { return balloon_; }
  virtio::ConsoleDevice* console() { return console_; }
  std::vector<std::pair<std::string, std::uint64_t>> statistics() const;

 private:
  PciDevices(unsigned firstSlot, const MachineConfig& config, EventLoop& loop, Doorbells& doorbells)
      : loop_(loop), doorbells_(doorbells), slots_(firstSlot, config.pciePorts) {}
  PciHost::Setup hostSetup(GuestMemory& memory, IoBus& ports, IoBus& mmio, Chipset& chipset);
  /// `name` is the device's for users (PciSlots).
  Result<PciSlots::Place> add(std::unique_ptr<virtio::Device> device, std::string functionName,
                              const std::string& name);
  Status addDisks(const MachineConfig& config, GuestMemory& memory);
  Status addPointer(const MachineConfig& config, GuestMemory& memory);
  Status addNets(const MachineConfig& config, EventLoop& loop, GuestMemory& memory);

  EventLoop& loop_;
  Doorbells& doorbells_;
  // Functions go before the host that they are plugged into.
  std::unique_ptr<PciHost> host_;
  std::unique_ptr<PcBoard> pc_;  ///< of the pc board
  PciStorage storage_;
  usb::Tablet usbTablet_;
  std::unique_ptr<usb::XhciController> usb_;
  PciSlots slots_;
  std::vector<std::unique_ptr<virtio::PciTransport>> functions_;
  RemovableDrives drives_;
  std::vector<virtio::BlockDevice*> disks_;
  std::vector<virtio::NetDevice*> nets_;
  virtio::BalloonDevice* balloon_ = nullptr;
  virtio::ConsoleDevice* console_ = nullptr;
};

}  // namespace lodge
