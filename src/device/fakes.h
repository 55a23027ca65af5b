// SPDX-License-Identifier: Apache-2.0
// Counting stand-ins for what devices are handed; for tests only.
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>
#include <vector>

#include "device/apic.h"
#include "device/interrupt.h"

namespace lodge {

struct FakeLine : InterruptLine {
  void set(bool value) override {
    if (value && !level) ++rises;
    level = value;
  }
  bool waits() const override { return busy; }
  bool level = false, busy = false;
  int rises = 0;
};

struct FakeMsiSink : MsiSink {
  void sendMsi(std::uint64_t address, std::uint32_t data) override { sent.emplace_back(address, data); }
  std::vector<std::pair<std::uint64_t, std::uint32_t>> sent;
};

struct FakeMessageSink : ApicMessageSink {
  bool deliver(const ApicMessage& message) override {
    sent.push_back(message);
    return accept;
  }
  std::vector<ApicMessage> sent;
  bool accept = true;
};

struct FakeApicCpu : ApicCpu {
  void raiseInterrupt() override { ++interrupts; }
  void raiseNmi() override { ++nmis; }
  void raiseSmi() override { ++smis; }
  void raiseInit() override { ++inits; }
  void raiseStartUp(std::uint8_t vector) override { startUps.push_back(vector); }
  std::atomic<int> interrupts{0}, nmis{0}, smis{0}, inits{0};
  std::vector<std::uint8_t> startUps;
};

}  // namespace lodge
