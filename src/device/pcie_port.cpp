// SPDX-License-Identifier: Apache-2.0
#include "device/pcie_port.h"

#include <array>
#include <span>
#include <utility>

#include "device/pci_function.h"

namespace lodge {

namespace {
// The PCI Express capability (7.8); offsets from where it begins.
constexpr std::uint8_t kCapabilityExpress = 0x10, kCapabilitySubsystem = 0x0d;
constexpr unsigned kExpressBytes = 0x3c;
constexpr unsigned kFlags = 0x02, kDeviceCapabilities = 0x04, kDeviceControl = 0x08, kLinkCapabilities = 0x0c,
                   kLinkControl = 0x10, kLinkStatus = 0x12, kSlotCapabilities = 0x14, kSlotStatus = 0x1a,
                   kRootControl = 0x1c, kDeviceControl2 = 0x28, kLinkCapabilities2 = 0x2c, kLinkControl2 = 0x30;
constexpr std::uint32_t kVersion2 = 2, kTypeEndpoint = 0 << 4, kTypeRootPort = 4 << 4, kSlotImplemented = 1 << 8;
constexpr std::uint32_t kRoleBasedErrors = 1 << 15;
/// 8 GT/s over four lanes, the link up: drivers read it to say how fast a device may be.
constexpr std::uint32_t kSpeed = 3, kWidth = 4 << 4, kLinkActive = 1 << 13, kActiveReporting = 1 << 20;
constexpr std::uint32_t kSpeeds = 7 << 1;
constexpr std::uint32_t kPresent = 1 << 6;

class ExpressCapability {
 public:
  void put(unsigned at, std::uint32_t value, unsigned bytes) {
    for (unsigned b = 0; b < bytes; ++b) body_[at - 2 + b] = static_cast<std::uint8_t>(value >> (8 * b));
  }
  void allow(unsigned at, std::uint16_t bits) {
    writable_[at - 2] = static_cast<std::uint8_t>(bits);
    writable_[at - 1] = static_cast<std::uint8_t>(bits >> 8);
  }
  /// What endpoints and ports have in common. Payloads of 128 bytes.
  explicit ExpressCapability(std::uint32_t flags, unsigned port) {
    put(kFlags, kVersion2 | flags, 2);
    put(kDeviceCapabilities, kRoleBasedErrors, 4);
    allow(kDeviceControl, 0x7fff);
    put(kLinkCapabilities, kSpeed | kWidth | static_cast<std::uint32_t>(port) << 24, 4);
    allow(kLinkControl, 0x01c3);
    put(kLinkStatus, kSpeed | kWidth, 2);
    allow(kDeviceControl2, 0x001f);
    put(kLinkCapabilities2, kSpeeds, 4);
    put(kLinkControl2, kSpeed, 2);
    allow(kLinkControl2, 0x000f);
  }
  void addTo(PciFunction& function) { function.addCapability(kCapabilityExpress, body_, writable_); }

 private:
  std::array<std::uint8_t, kExpressBytes - 2> body_{}, writable_{};
};
}  // namespace

PciePort::PciePort(unsigned number, std::string name)
    : PciFunction({.vendor = 0x1b36,
                   .device = 0x000c,
                   .revision = 0,
                   .classCode = 0x060400,
                   .subsystemVendor = 0,
                   .subsystem = 0},
                  std::move(name)) {
  constexpr std::uint8_t kTypeBridge = 1;
  storeConfig(pci::kHeaderType, std::span(&kTypeBridge, 1));
  for (unsigned at = pci::kPrimaryBus; at <= pci::kSubordinateBus; ++at) makeWritable(at, 0xff);
  makeWritable(pci::kIoBase, 0xf0);
  makeWritable(pci::kIoBase + 1, 0xf0);
  for (unsigned at : {pci::kMemoryBase, pci::kMemoryBase + 2, pci::kPrefetchableBase, pci::kPrefetchableBase + 2}) {
    makeWritable(at, 0xf0);
    makeWritable(at + 1, 0xff);
  }
  for (unsigned at = pci::kPrefetchableUpper; at < pci::kPrefetchableUpper + 8; ++at) makeWritable(at, 0xff);
  makeWritable(pci::kBridgeControl, 0x03);  // what happens at errors
  useIntx();
  ExpressCapability express(kTypeRootPort | kSlotImplemented, number);
  express.put(kLinkCapabilities, kSpeed | kWidth | kActiveReporting | static_cast<std::uint32_t>(number) << 24, 4);
  express.put(kLinkStatus, kSpeed | kWidth | kLinkActive, 2);
  express.put(kSlotCapabilities, static_cast<std::uint32_t>(number) << 19, 4);
  express.put(kSlotStatus, kPresent, 2);
  express.allow(kRootControl, 0x000f);
  express.addTo(*this);
  constexpr std::array<std::uint8_t, 6> kSubsystem{0, 0, 0xf4, 0x1a, 0x00, 0x11};
  addCapability(kCapabilitySubsystem, kSubsystem);
  loadResetValues();
}

void PciePort::loadResetValues() {
  std::array<std::uint8_t, pci::kBridgeEnd - pci::kPrimaryBus> header{};
  header[pci::kPrefetchableBase - pci::kPrimaryBus] = pci::kPrefetchable64;
  header[pci::kPrefetchableBase + 2 - pci::kPrimaryBus] = pci::kPrefetchable64;
  header[pci::kCapabilities - pci::kPrimaryBus] = static_cast<std::uint8_t>(readConfig(pci::kCapabilities, 1));
  header[pci::kInterruptPin - pci::kPrimaryBus] = static_cast<std::uint8_t>(readConfig(pci::kInterruptPin, 1));
  storeConfig(pci::kPrimaryBus, header);
}

void PciePort::reset() {
  loadResetValues();
  PciFunction::reset();
}

void makeExpressEndpoint(PciFunction& function) {
  ExpressCapability express(kTypeEndpoint, 0);
  express.put(kDeviceCapabilities, kRoleBasedErrors, 4);
  express.addTo(function);
}

}  // namespace lodge
