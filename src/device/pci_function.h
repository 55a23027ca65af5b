// SPDX-License-Identifier: Apache-2.0
// Inside of PciFunction, shared with PciHost. Nobody else includes it.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <optional>

#include "device/msix.h"
#include "device/pci.h"

namespace lodge {

namespace pci {
// Configuration header (PCI Local Bus 3.0, figure 6-1).
inline constexpr unsigned kVendor = 0x00, kCommand = 0x04, kStatus = 0x06, kRevision = 0x08, kCacheLine = 0x0c,
                          kLatency = 0x0d, kHeaderType = 0x0e, kBars = 0x10, kSubsystem = 0x2c, kCapabilities = 0x34,
                          kInterruptLine = 0x3c, kInterruptPin = 0x3d, kHeaderEnd = 0x40, kSpaceEnd = 0x100;
inline constexpr std::uint16_t kCommandIo = 1, kCommandMemory = 2, kCommandMaster = 4, kCommandParity = 0x40,
                               kCommandSerr = 0x100, kCommandIntxDisable = 0x400;
inline constexpr std::uint16_t kStatusInterrupt = 8, kStatusCapabilities = 0x10;
inline constexpr std::uint8_t kCapabilityMsix = 0x11;
// The header of a bridge (PCI-to-PCI Bridge Architecture 1.2, figure 3-3), where it is another: bus numbers, and the
// bounds of what is forwarded, each a base and a limit.
inline constexpr unsigned kPrimaryBus = 0x18, kSecondaryBus = 0x19, kSubordinateBus = 0x1a, kIoBase = 0x1c,
                          kMemoryBase = 0x20, kPrefetchableBase = 0x24, kPrefetchableUpper = 0x28,
                          kBridgeControl = 0x3e, kBridgeEnd = 0x40;
inline constexpr std::uint8_t kPrefetchable64 = 1;
}  // namespace pci

/// What a plugged function needs of its host.
class PciBackbone {
 public:
  virtual ~PciBackbone() = default;
  /// Brings the buses in line with the function's BARs and command register.
  virtual void updateDecoding(PciFunction& function) = 0;
  virtual void driveIntx(unsigned slot, bool level) = 0;
};

/// Lock order: access, PciHost's decoding mutex, IoBus; and state, MSI-X table or INTx lines, interrupt controllers.
/// `access` makes configuration writes one at a time (it is held across configWritten()), `state` guards the fields.
struct PciFunction::Implementation {
  struct Bar {
    BarKind kind{};
    std::uint64_t size = 0;  ///< 0: none
    IoDevice* handler = nullptr;
    // Of PciHost, under its decoding mutex:
    std::uint64_t assigned = 0;  ///< the address after reset
    std::optional<std::uint64_t> mapped;
    bool clashLogged = false;

    bool isIo() const { return kind == BarKind::io; }
    bool is64() const { return kind == BarKind::memory64 || kind == BarKind::memory64Prefetchable; }
  };

  std::mutex access;
  std::mutex state;
  std::array<std::uint8_t, pci::kSpaceEnd> config{};
  std::array<std::uint8_t, pci::kSpaceEnd> writable{};
  std::array<Bar, 6> bars;
  unsigned capabilityEnd = pci::kHeaderEnd;
  unsigned capabilityLink = pci::kCapabilities;
  std::unique_ptr<MsixTable> msix;
  unsigned msixControl = 0;  ///< offset of message control
  bool intxLevel = false, intxDriven = false;
  PciBackbone* host = nullptr;
  unsigned slot = 0;                                     ///< on bus 0: its own, or that of the port before it
  PciFunction *portBefore = nullptr, *behind = nullptr;  ///< of a function behind a port; of a port

  std::uint16_t word(unsigned offset) const {
    return static_cast<std::uint16_t>(config[offset] | config[offset + 1] << 8);
  }
  void setWord(unsigned offset, std::uint16_t value) {
    config[offset] = static_cast<std::uint8_t>(value);
    config[offset + 1] = static_cast<std::uint8_t>(value >> 8);
  }
  std::uint32_t dword(unsigned offset) const {
    return word(offset) | static_cast<std::uint32_t>(word(offset + 2)) << 16;
  }
  void setDword(unsigned offset, std::uint32_t value) {
    setWord(offset, static_cast<std::uint16_t>(value));
    setWord(offset + 2, static_cast<std::uint16_t>(value >> 16));
  }
  /// Where the BAR's register says that it is; nothing while the command register disables its space.
  std::optional<std::uint64_t> barAddressLocked(unsigned slotNumber) const;
  void setBarLocked(unsigned slotNumber, std::uint64_t address);
  /// Of a port: whether it forwards all of [base, base + size) to the bus behind it.
  bool forwardsLocked(bool io, std::uint64_t base, std::uint64_t size) const;
  /// Follows message control and the command register after they changed.
  void updateInterruptsLocked();
};

}  // namespace lodge
