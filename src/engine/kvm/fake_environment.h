// SPDX-License-Identifier: Apache-2.0
// The world around a vCPU, for the engine's tests only.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <tuple>
#include <vector>

#include "x86/cpu.h"

namespace lodge::kvm {

/// An APIC that has the vectors that a test puts in.
class FakeApic : public x86::LocalApic {
 public:
  int acknowledge() override {
    int vector = waiting.exchange(-1);
    if (onAcknowledge) onAcknowledge();
    return vector;
  }
  bool pending() const override { return waiting >= 0; }
  std::uint8_t taskPriority() const override { return tpr; }
  void setTaskPriority(std::uint8_t cr8) override { tpr = cr8; }
  bool readMsr(std::uint32_t msr, std::uint64_t& value) override {
    value = msrs[msr];
    return msr != 0x8ff;
  }
  bool writeMsr(std::uint32_t msr, std::uint64_t value) override {
    msrs[msr] = value;
    return msr != 0x8ff;
  }
  void reset() override {}

  std::atomic<int> waiting{-1};
  std::uint8_t tpr = 0;
  std::map<std::uint32_t, std::uint64_t> msrs;
  std::function<void()> onAcknowledge;
};

class FakeEnvironment : public x86::CpuEnvironment {
 public:
  std::uint64_t readPort(std::uint16_t port, unsigned size) override { return port * 3u + size; }
  void writePort(std::uint16_t port, unsigned size, std::uint64_t value) override {
    ports.emplace_back(port, size, value);
    if (onPort) onPort(value);
  }
  std::uint64_t readMmio(Gpa gpa, unsigned size) override { return raw(gpa) + size; }
  void writeMmio(Gpa gpa, unsigned size, std::uint64_t value) override { stores.emplace_back(raw(gpa), size, value); }
  x86::LocalApic& apic() override { return apic_; }
  std::int64_t hypercall(std::uint64_t, const std::uint64_t (&)[4]) override { return 0; }
  Nanoseconds guestTime() override { return 0; }
  Nanoseconds wallClockBase() override { return 0; }

  FakeApic apic_;
  std::vector<std::tuple<std::uint64_t, unsigned, std::uint64_t>> ports, stores;
  std::function<void(std::uint64_t)> onPort;
};

}  // namespace lodge::kvm
