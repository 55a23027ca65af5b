// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "x86/cpu.h"

namespace lodge {

/// Stands between a vCPU and its world and writes a line for each access (`--trace io`):
///   lodge: debug: vcpu0 out 0x3f8/1 0x41
/// On the vCPU's thread.
class TracingEnvironment : public x86::CpuEnvironment {
 public:
  /// `world` must outlive this.
  TracingEnvironment(unsigned index, x86::CpuEnvironment& world) : index_(index), world_(world) {}

  std::uint64_t readPort(std::uint16_t port, unsigned size) override;
  void writePort(std::uint16_t port, unsigned size, std::uint64_t value) override;
  std::uint64_t readMmio(Gpa gpa, unsigned size) override;
  void writeMmio(Gpa gpa, unsigned size, std::uint64_t value) override;
  x86::LocalApic& apic() override { return world_.apic(); }
  std::int64_t hypercall(std::uint64_t number, const std::uint64_t (&arguments)[4]) override;
  Nanoseconds guestTime() override { return world_.guestTime(); }
  Nanoseconds wallClockBase() override { return world_.wallClockBase(); }

 private:
  void line(const char* what, std::uint64_t where, unsigned size, std::uint64_t value) const;

  unsigned index_;
  x86::CpuEnvironment& world_;
};

}  // namespace lodge
