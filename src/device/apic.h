// SPDX-License-Identifier: Apache-2.0
// What travels between local APICs, I/O APICs and CPUs (SDM vol. 3, chapter 11).
#pragma once

#include <cstdint>
#include <span>

namespace lodge {

/// Delivery modes, as the ICR, MSI data and redirection entries encode them.
enum class DeliveryMode : std::uint8_t {
  fixed = 0,
  lowestPriority = 1,
  smi = 2,
  remoteRead = 3,
  nmi = 4,
  init = 5,
  startUp = 6,
  extInt = 7,
};

/// An interrupt message on its way to the local APICs.
struct ApicMessage {
  std::uint32_t destination;  ///< physical APIC id or logical mask
  bool wideDestination;       ///< 32 bits, from an x2APIC's ICR; otherwise 8 bits, where 0xff is everyone
  bool logical;
  DeliveryMode mode;
  std::uint8_t vector;
  bool levelTriggered;
  bool assertLevel;
};

/// Where interrupt messages go: ApicBus. Any thread.
class ApicMessageSink {
 public:
  virtual ~ApicMessageSink() = default;
  /// Whether any CPU took it.
  virtual bool deliver(const ApicMessage& message) = 0;
  /// The level-triggered message of an I/O APIC's pin, masked or not; null: it has none. Its EOI is waited for.
  virtual void setLevelMessage(unsigned /*pin*/, const ApicMessage* /*message*/) {}
  /// Whether a CPU that the message names has its vector requested already: it would be lost in that.
  virtual bool waits(const ApicMessage&) const { return false; }
};

/// Who keeps the local APICs in place of the board: an engine. Any thread.
class ApicKeeper {
 public:
  virtual ~ApicKeeper() = default;
  /// A write to 0xfeexxxxx (SDM vol. 3, 11.11). Whether any CPU took it.
  virtual bool sendMsi(std::uint64_t address, std::uint32_t data) = 0;
  struct Msi {
    std::uint64_t address;
    std::uint32_t data;
    bool operator==(const Msi&) const = default;
  };
  /// All level-triggered messages that I/O APICs may send: EOIs of their vectors are to be told to ApicBus.
  virtual void setLevelMessages(std::span<const Msi> messages) = 0;
  /// From now on an event of the eventfd sends the message; null: no more, and none is on its way. False: it cannot.
  virtual bool setMsiEvent(int /*event*/, const Msi* /*message*/) { return false; }
};

/// A CPU as its local APIC sees it. Any thread; called with no lock held that a CPU could wait for.
class ApicCpu {
 public:
  virtual ~ApicCpu() = default;
  /// LocalApic::pending() may have become true.
  virtual void raiseInterrupt() = 0;
  virtual void raiseNmi() = 0;
  virtual void raiseSmi() = 0;
  virtual void raiseInit() = 0;
  virtual void raiseStartUp(std::uint8_t vector) = 0;
};

/// Gives the vector of an ExtINT: the 8259A. Called on a vCPU's thread, without locks.
class ExtIntSource {
 public:
  virtual ~ExtIntSource() = default;
  virtual std::uint8_t acknowledgeInterrupt() = 0;
};

/// Hears EOIs of level-triggered vectors: an I/O APIC. Called on a vCPU's thread, without locks.
class EoiListener {
 public:
  virtual ~EoiListener() = default;
  virtual void endOfInterrupt(std::uint8_t vector) = 0;
};

}  // namespace lodge
