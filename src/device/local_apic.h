// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>

#include "device/apic.h"
#include "device/local_apic_timer.h"
#include "device/vector_set.h"
#include "memory/io_bus.h"
#include "x86/local_apic.h"
#include "x86/local_apic_registers.h"

namespace lodge {

class ApicBus;

/// One CPU's local APIC (SDM vol. 3, chapter 11): xAPIC page and x2APIC MSRs, six LVT entries, directed EOI.
///
/// The register interfaces (x86::LocalApic and IoDevice) are used on the CPU's own thread only; the board sends
/// accesses to the page at mmioBase() to the APIC of the CPU that makes them. accept(), setLint() and the queries for
/// routing may be called by any thread. There is no lock on the way of an interrupt: IRR, ISR and registers are
/// atomics. Only the LINT pins and the timer have small mutexes; none is held while another part is called, but for the
/// host timer.
class LocalApic : public x86::LocalApic, public IoDevice {
 public:
  struct Setup {
    unsigned id;     ///< initial APIC id
    bool bootstrap;  ///< the BSP; its LINT pins are in virtual wire mode after power-up, as firmware would set them
    unsigned physicalAddressBits = 52;
    ApicBus& bus;
    ApicCpu& cpu;
    TimerFactory& timers;
    std::function<Nanoseconds(std::uint64_t)> timeOfTsc;  ///< see LocalApicTimer
  };
  /// Attaches itself to the bus.
  explicit LocalApic(const Setup& setup);

  // x86::LocalApic. pending() and taskPriority() use no vector registers and call nothing outside the folder.
  int acknowledge() override;
  bool pending() const override;
  std::uint8_t taskPriority() const override;
  void setTaskPriority(std::uint8_t cr8) override;
  bool readMsr(std::uint32_t msr, std::uint64_t& value) override;
  bool writeMsr(std::uint32_t msr, std::uint64_t value) override;
  void reset() override;
  bool eoiMayBeSkipped() const override;
  void tscChanged() override { timer_.tscChanged(); }
  void endOfInterrupt() override;

  /// The xAPIC page; `offset` < 4096.
  std::uint64_t read(std::uint64_t offset, unsigned size) override;
  void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
  /// Whether this APIC's page answers at `address` (it is in xAPIC mode and the page lies there). Any thread.
  bool answersAt(std::uint64_t address) const {
    std::uint64_t base = base_.load(std::memory_order_relaxed);
    return (base & (kEnable | kX2Apic)) == kEnable && ((base ^ address) & ~std::uint64_t{0xfff}) == 0;
  }

  /// Machine reset (reset() is INIT).
  void powerOn();
  /// An interrupt message for this CPU; whether it was taken. Any thread.
  bool accept(const ApicMessage& message);
  /// LINT0 or LINT1. Any thread.
  void setLint(unsigned pin, bool level);
  /// Local performance counter overflow. Any thread.
  void performanceInterrupt() { deliverLvt(kLvtPerformance); }

  // For routing; any thread.
  bool isDestination(const ApicMessage& message) const;
  bool softwareEnabled() const { return (spurious_.load(std::memory_order_relaxed) & kSoftwareEnable) != 0; }
  bool isFocus(std::uint8_t vector) const;
  bool isRequested(std::uint8_t vector) const { return irr_.test(vector); }
  bool isInService(std::uint8_t vector) const { return isr_.test(vector); }
  /// Whether its EOIs go to no I/O APIC (SDM vol. 3, 11.8.5).
  bool suppressesEoi() const { return (spurious_.load(std::memory_order_relaxed) & kSuppressEoi) != 0; }
  std::uint8_t processorPriority() const { return ppr_.load(std::memory_order_relaxed); }
  std::uint32_t id() const { return id_.load(std::memory_order_relaxed); }

  LocalApicTimer& timer() { return timer_; }
  const LocalApicTimer& timer() const { return timer_; }

  static constexpr unsigned kLvtTimer = 0, kLvtThermal = 1, kLvtPerformance = 2, kLvtLint0 = 3, kLvtLint1 = 4,
                            kLvtError = 5, kLvtCount = 6;
  struct State {
    std::uint64_t base, icr;
    std::uint32_t id, logicalDestination, destinationFormat, spurious, errorStatus, pendingErrors;
    std::uint8_t taskPriority;
    std::array<std::uint32_t, kLvtCount> lvt;
    std::array<std::uint32_t, 8> irr, isr, tmr;
    LocalApicTimer::State timer;
  };
  State save() const;
  /// While the CPU does not run.
  void restore(const State& state);

  /// Hands the state to an engine that keeps local APICs itself. Until adopt() or restore() this one only says whether
  /// the 8259A asks (pending(), acknowledge()); whether the CPU listens to it is the engine's business. While the CPU
  /// does not run, after syncParavirtEoi().
  x86::LocalApicRegisters surrender();
  /// Takes the state back; an armed deadline goes by the CPU's TSC of now. While the CPU does not run.
  void adopt(const x86::LocalApicRegisters& registers);

 private:
  static constexpr std::uint64_t kBootstrap = 1 << 8, kX2Apic = 1 << 10, kEnable = 1 << 11;
  static constexpr std::uint32_t kSoftwareEnable = 1 << 8, kFocusDisabled = 1 << 9, kSuppressEoi = 1 << 12;
  static constexpr std::uint32_t kLvtMasked = 1 << 16;
  using Register = std::atomic<std::uint32_t>;

  bool hardwareEnabled() const { return (base_.load(std::memory_order_relaxed) & kEnable) != 0; }
  bool x2Apic() const { return (base_.load(std::memory_order_relaxed) & kX2Apic) != 0; }
  bool acceptVector(std::uint8_t vector, bool levelTriggered);
  bool deliverLvt(unsigned index);
  void raiseError(std::uint32_t bits);
  void updatePriority();
  void signalIfPending();
  void clearRegisters();

  // local_apic_registers.cpp
  std::uint32_t readRegister(unsigned index, bool& exists) const;
  bool writeRegister(unsigned index, std::uint32_t value);
  std::uint32_t arbitrationPriority() const;
  void writeLvt(unsigned index, std::uint32_t value);
  void writeSpurious(std::uint32_t value);
  void writeErrorStatus();
  void sendCommand(std::uint64_t command);
  bool readX2Apic(unsigned index, std::uint64_t& value) const;
  bool writeX2Apic(unsigned index, std::uint64_t value);
  bool writeBase(std::uint64_t value);
  void enterX2Apic();

  // local_apic_lint.cpp
  void storeLint(unsigned index, std::uint32_t value);
  void updateExtIntLocked();
  void driveLintLocked(unsigned pin, bool rising);
  void lintConfigured();
  void lintEndOfInterrupt(std::uint8_t vector);

  // What other threads write and pending() reads, on cache lines of their own.
  alignas(64) VectorSet irr_;
  std::atomic<bool> extInt_{false};         ///< LINT0 in ExtINT mode (or the APIC is off) and the 8259A's line is high
  std::atomic<bool> extIntMessage_{false};  ///< a message with delivery mode ExtINT
  alignas(64) VectorSet isr_;
  std::atomic<std::uint8_t> ppr_{0}, tpr_{0};
  VectorSet tmr_;
  int lastAcknowledged_ = -1;

  const unsigned initialId_;
  const bool bootstrap_;
  const std::uint64_t baseReserved_;
  ApicBus& bus_;
  ApicCpu& cpu_;
  std::atomic<bool> away_{false};  ///< an engine has the state
  std::atomic<std::uint64_t> base_{0};
  std::atomic<std::uint64_t> icr_{0};
  Register id_{0};  ///< 8 bits in xAPIC mode
  Register logicalDestination_{0}, destinationFormat_{0}, spurious_{0}, errorStatus_{0}, pendingErrors_{0};
  std::array<Register, kLvtCount> lvt_{};
  std::mutex lintMutex_;
  std::array<bool, 2> lintLevel_{};
  LocalApicTimer timer_;  // last: its destructor waits for the callback
};

}  // namespace lodge
