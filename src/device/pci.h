// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "device/interrupt.h"
#include "memory/io_bus.h"
#include "state/archive.h"

namespace lodge {

struct PciIdentity {
  std::uint16_t vendor, device;
  std::uint8_t revision;
  std::uint32_t classCode;  ///< 24 bits: class, subclass, programming interface
  std::uint16_t subsystemVendor, subsystem;
};

/// A PCI function: configuration space (PCI Local Bus 3.0, chapter 6; PCIe extended space reads as zero), BARs, MSI-X.
/// A device derives from it or owns one; it adds its BARs and capabilities before it is plugged into a PciHost.
/// Configuration writes come from any vCPU thread, one at a time for each function.
/// BARs of 64 bits and at most 16 MiB get addresses in the 32-bit window, so that guests which cannot address more see
/// them.
class PciFunction {
 public:
  PciFunction(const PciIdentity& identity, std::string name);
  virtual ~PciFunction();

  /// `size` is a power of two, at least 16 (I/O) or 4096 (memory). `handler` sees offsets from the BAR's start. A
  /// 64-bit BAR takes two slots. `slot` 0..5.
  enum class BarKind : std::uint8_t { io, memory32, memory64, memory64Prefetchable };
  void addBar(unsigned slot, BarKind kind, std::uint64_t size, IoDevice& handler);
  /// Appends a capability; `body` is what follows the id and next bytes; bits set in `writable` may be changed by the
  /// guest. Returns its offset in configuration space.
  std::uint8_t addCapability(std::uint8_t id, std::span<const std::uint8_t> body,
                             std::span<const std::uint8_t> writable = {});
  /// MSI-X with `vectors` vectors: adds the capability and a BAR of its own in `slot` for table and pending bits.
  void addMsix(unsigned slot, unsigned vectors);
  /// INTA#, routed by the board; the function drives `setIntx`.
  void useIntx();
  /// A device's own register, before the function is plugged: bits set in `mask` may be changed by the guest. Its value
  /// after reset is the device's business (storeConfig() in reset()).
  void makeWritable(unsigned offset, std::uint8_t mask);

  /// Sends MSI-X vector `vector` (pending if masked). Does nothing if MSI-X is off. Any thread.
  void signalMsix(unsigned vector);
  bool msixEnabled() const;
  /// Drives INTA# (ignored while MSI-X is enabled or the command register disables it). Any thread.
  void setIntx(bool level);

  const std::string& name() const { return name_; }
  /// Configuration space as the host reads it; `size` 1, 2, 4; `offset` < 4096.
  std::uint32_t readConfig(unsigned offset, unsigned size);
  void writeConfig(unsigned offset, unsigned size, std::uint32_t value);
  /// The device changes bytes itself, whatever the guest may write there; no hook is called. Any thread, also from
  /// hooks.
  void storeConfig(unsigned offset, std::span<const std::uint8_t> bytes);
  /// The guest is about to read these bytes: a device whose registers have effects on reads (virtio's configuration
  /// access capability) stores them now. Default: nothing.
  virtual void configAboutToBeRead(unsigned offset, unsigned size);
  /// A capability's or header's bytes were written by the guest (after the masked store). Default: nothing.
  virtual void configWritten(unsigned offset, unsigned size);
  /// The BAR in `slot` answers at `base` from now on, or nowhere. Under the host's decoding lock. Default: nothing.
  virtual void barPlaced(unsigned slot, std::optional<std::uint64_t> base);
  /// Conventional reset of this function (machine reset): BARs cleared, command 0, MSI-X off.
  virtual void reset();
  /// Saves or loads the function: its configuration space, MSI-X table and interrupt pin; devices add what they have.
  /// While no vCPU runs. What was loaded decides where BARs answer.
  virtual void transfer(state::Archive& a);

 private:
  friend class PciHost;
  struct Implementation;
  std::unique_ptr<Implementation> impl_;
  std::string name_;
};

class PciePort;

/// The host bridge of bus 0 and what is behind its ports: configuration mechanism 1 (ports 0xcf8, 0xcfc) and ECAM, BAR
/// decoding onto the buses, INTx. BARs are decoded only inside the windows; where two overlap, the one that was there
/// first answers. Host, functions and buses are used together and go together: none calls another while it is
/// destroyed.
class PciHost {
 public:
  /// Port numbers that I/O BARs are decoded at; plug() hands them out from kIoAssignBase on.
  static constexpr std::uint64_t kIoWindowBase = 0x1000, kIoWindowEnd = 0x10000, kIoAssignBase = 0xc000;

  struct Setup {
    IoBus& ports;
    IoBus& memory;
    MsiSink& msi;
    std::array<InterruptLine*, 4> intx;  ///< INTA..INTD after swizzling ((slot + pin) % 4)
    std::uint64_t ecamBase;              ///< 1 MiB, bus 0 only, until it is placed elsewhere; 0: no ECAM
    std::uint64_t window32Base, window32Size;
    std::uint64_t window64Base, window64Size;
    IoDevice* resetControl = nullptr;  ///< answers byte accesses to port 0xcf9, which lies inside the address register
    PciFunction* bridge = nullptr;     ///< the function at 0.0, if the board has one of its own
    bool firmwareAssigns = false;      ///< the guest's firmware places BARs: they are 0 and off at first
  };
  static Result<std::unique_ptr<PciHost>> create(const Setup& setup);
  ~PciHost();

  /// Puts `function` at bus 0, device `slot` (1..31), function `number` (0..7; 0 goes first), and gives its BARs
  /// addresses inside the windows (firmware's work; guests may move them). Errors: alreadyExists, outOfMemory (window
  /// full).
  Status plug(unsigned slot, PciFunction& function, unsigned number = 0);
  /// Puts a PCI Express port at bus 0, device `slot`, and `behind` (or nothing) behind it, as device 0 of its bus, with
  /// the capability of an endpoint. Only where firmware places BARs. Errors: plug()'s.
  Status plugPort(unsigned slot, PciePort& port, PciFunction* behind);
  /// The memory-mapped configuration space of `buses` buses from 0 on begins at `base`, a multiple of 1 MiB, from now
  /// on, or is nowhere. For boards whose bridge has a register for that; any vCPU's thread.
  void placeEcam(std::optional<std::uint64_t> base, unsigned buses = 1);
  /// Saves or loads the host's own registers (not its functions).
  void transfer(state::Archive& a);
  /// Machine reset: resets each function and assigns BARs again, with memory, I/O and bus mastering enabled.
  void reset();

 private:
  struct Implementation;
  explicit PciHost(std::unique_ptr<Implementation> impl);
  std::unique_ptr<Implementation> impl_;
};

}  // namespace lodge
