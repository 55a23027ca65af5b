// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

#include "base/clock.h"
#include "device/local_apic.h"
#include "memory/io_bus.h"
#include "x86/cpu.h"

namespace lodge {

/// The world around one vCPU of the board: both buses, its own local APIC's page in front of the memory bus,
/// hypercalls.
class VcpuEnvironment : public x86::CpuEnvironment {
 public:
  struct Setup {
    IoBus& ports;
    IoBus& memory;
    LocalApic& apic;  ///< its page answers this vCPU only
    const Clock& clock;
    /// Stores to [smmOnlyBase, 4 GiB) are dropped unless `cpu` is in system management mode; 0: there is no such part.
    std::uint64_t smmOnlyBase;
    const std::atomic<x86::Cpu*>& cpu;
    const Nanoseconds& wallClockBase;  ///< Unix time, in nanoseconds, at the clock's zero
    /// KVM_HC_SEND_IPI's and KVM_HC_KICK_CPU's work; arguments as the guest gave them.
    std::function<std::int64_t(std::uint64_t number, const std::uint64_t (&arguments)[4])> hypercall;
  };
  explicit VcpuEnvironment(Setup setup) : setup_(std::move(setup)) {}

  std::uint64_t readPort(std::uint16_t port, unsigned size) override { return setup_.ports.read(port, size); }
  void writePort(std::uint16_t port, unsigned size, std::uint64_t value) override {
    setup_.ports.write(port, size, value);
  }
  std::uint64_t readMmio(Gpa gpa, unsigned size) override;
  void writeMmio(Gpa gpa, unsigned size, std::uint64_t value) override;
  // vcpu_environment_live.cpp
  bool readPortLive(std::uint16_t port, unsigned size, std::uint64_t& value) override;
  bool writePortLive(std::uint16_t port, unsigned size, std::uint64_t value) override;
  bool readMmioLive(Gpa gpa, unsigned size, std::uint64_t& value) override;
  bool writeMmioLive(Gpa gpa, unsigned size, std::uint64_t value) override;
  x86::LocalApic& apic() override { return setup_.apic; }
  std::int64_t hypercall(std::uint64_t number, const std::uint64_t (&arguments)[4]) override {
    return setup_.hypercall(number, arguments);
  }
  Nanoseconds guestTime() override { return setup_.clock.now(); }
  Nanoseconds wallClockBase() override { return setup_.wallClockBase; }

 private:
  bool isApicPage(Gpa gpa, unsigned size) const {
    return setup_.apic.answersAt(raw(gpa)) && (raw(gpa) & kPageMask) + size <= kPageSize;
  }

  Setup setup_;
};

}  // namespace lodge
