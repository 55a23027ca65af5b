// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <vector>

#include "device/apic.h"
#include "device/interrupt.h"
#include "device/msi_route.h"

namespace lodge {

class LocalApic;

/// The system bus between local APICs, I/O APICs and devices with MSIs: finds the CPUs that a message is for, or hands
/// it to the engine that keeps the local APICs. Made by the board before anything that uses it; all are attached before
/// the first vCPU runs and none leaves, so that CPUs' own messages need no lock. Any thread.
class ApicBus : public MsiSink, public MsiRouter, public ApicMessageSink {
 public:
  void attach(LocalApic& apic);
  void attach(EoiListener& listener) { eoiListeners_.push_back(&listener); }
  void setExtIntSource(ExtIntSource* source) { extIntSource_ = source; }
  ExtIntSource* extIntSource() const { return extIntSource_; }

  /// A write to 0xfeexxxxx (SDM vol. 3, 11.11); what lies elsewhere is no interrupt and is dropped.
  void sendMsi(std::uint64_t address, std::uint32_t data) override;
  void setRoute(MsiRoute& route) override;
  void dropRoute(MsiRoute& route) override;
  void signal(MsiRoute& route) override;
  /// Delivers to every CPU that the message names, or to one of them for lowest priority.
  bool deliver(const ApicMessage& message) override;
  bool waits(const ApicMessage& message) const override;
  void setLevelMessage(unsigned pin, const ApicMessage* message) override;
  /// From now on `keeper` has the local APICs; null: the board's. `move` moves their state, while messages wait. While
  /// no vCPU runs.
  void setKeeper(ApicKeeper* keeper, const std::function<void()>& move);
  /// An interrupt command (SDM vol. 3, figure 11-12) by `sender`: low half of ICR, and the destination.
  void sendIpi(LocalApic& sender, std::uint32_t command, std::uint32_t destination, bool wideDestination);
  /// KVM_HC_SEND_IPI (Linux Documentation/virt/kvm/x86/hypercalls.rst): bit n of `low`, then `high`, is APIC id
  /// `firstId` + n; `command` is an ICR value of which vector and delivery mode count. Returns how many CPUs took it,
  /// or -KVM_EINVAL (-22) for a delivery mode that is neither fixed nor NMI.
  std::int64_t sendParavirtIpi(std::uint64_t low, std::uint64_t high, std::uint32_t firstId, std::uint64_t command,
                               unsigned bitsPerWord);
  void broadcastEoi(std::uint8_t vector);
  /// Ends the level-triggered interrupts that no local APIC has any more, though nobody was told of their end. When
  /// the local APICs have come back from a keeper that tells it later than it happens; while no vCPU runs.
  void endLostInterrupts();

  /// LINT0 and LINT1 of every CPU: where the 8259A's INTR and the platform's NMI are wired. `pin` 0..1.
  InterruptLine& lint(unsigned pin) { return lint_[pin]; }

 private:
  struct LintLine : InterruptLine {
    LintLine(ApicBus& b, unsigned p) : bus(b), pin(p) {}
    void set(bool level) override;
    ApicBus& bus;
    unsigned pin;
  };
  LocalApic* lowestPriority(const ApicMessage& message);
  bool deliverHere(const ApicMessage& message);
  void tellLevelMessages();
  void tellRouteLocked(MsiRoute& route);

  static constexpr unsigned kPins = 24;
  mutable std::shared_mutex keeperMutex_;  ///< held for as long as a message takes to its local APIC
  ApicKeeper* keeper_ = nullptr;
  std::mutex levelMutex_;
  std::array<std::optional<ApicKeeper::Msi>, kPins> levelMessages_;
  std::vector<MsiRoute*> routes_;  ///< under levelMutex_
  std::vector<LocalApic*> apics_;
  std::vector<EoiListener*> eoiListeners_;
  ExtIntSource* extIntSource_ = nullptr;
  LintLine lint_[2]{{*this, 0}, {*this, 1}};
  std::atomic<unsigned> arbitration_{0};
};

}  // namespace lodge
