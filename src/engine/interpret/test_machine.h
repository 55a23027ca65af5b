// SPDX-License-Identifier: Apache-2.0
// A CPU with memory and nothing else, for this folder's tests: set to a mode, given bytes, stepped.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "engine/interpret/interpreter.h"
#include "memory/guest_memory.h"
#include "x86/cpu.h"
#include "x86/cpu_model.h"
#include "x86/system.h"
#include "x86/tlb.h"

namespace lodge::interpret {

class TestApic : public x86::LocalApic {
 public:
  int acknowledge() override { return -1; }
  bool pending() const override { return false; }
  std::uint8_t taskPriority() const override { return 0; }
  void setTaskPriority(std::uint8_t) override {}
  bool readMsr(std::uint32_t, std::uint64_t&) override { return false; }
  bool writeMsr(std::uint32_t, std::uint64_t) override { return false; }
  void reset() override {}
};

/// Ports answer their own number plus a counter; all accesses are logged. MMIO is 4 KiB of memory that starts as ones.
class TestEnvironment : public x86::CpuEnvironment {
 public:
  struct Access {
    bool write;
    std::uint64_t address;
    unsigned size;
    std::uint64_t value;
  };
  std::uint64_t readPort(std::uint16_t port, unsigned size) override {
    std::uint64_t value = (0x01010101u * (port & 0xff)) + counter_++;
    ports.push_back({false, port, size, value});
    return value;
  }
  void writePort(std::uint16_t port, unsigned size, std::uint64_t value) override {
    ports.push_back({true, port, size, value});
  }
  std::uint64_t readMmio(Gpa gpa, unsigned size) override {
    std::uint64_t value = 0;
    std::memcpy(&value, mmio + (raw(gpa) & 0xfff), size);
    mmioAccesses.push_back({false, raw(gpa), size, value});
    return value;
  }
  void writeMmio(Gpa gpa, unsigned size, std::uint64_t value) override {
    std::memcpy(mmio + (raw(gpa) & 0xfff), &value, size);
    mmioAccesses.push_back({true, raw(gpa), size, value});
  }
  x86::LocalApic& apic() override { return apic_; }
  std::int64_t hypercall(std::uint64_t, const std::uint64_t (&)[4]) override { return -1; }
  Nanoseconds guestTime() override { return 0; }
  Nanoseconds wallClockBase() override { return 0; }

  std::vector<Access> ports, mmioAccesses;
  std::uint8_t mmio[4096 + 8] = {};

 private:
  std::uint64_t counter_ = 0;
  TestApic apic_;
};

/// Guest-physical layout: IVT or IDT at 0, code at 0x10000, data at 0x20000, stack below 0x40000, page tables at
/// 0x80000, GDT at 0x90000. MMIO at 0xd0000000.
class TestMachine {
 public:
  static constexpr std::uint64_t kCode = 0x10000, kData = 0x20000, kStack = 0x40000, kTables = 0x80000, kGdt = 0x90000,
                                 kIdt = 0x91000, kTss = 0x92000, kHandlers = 0x94000, kMmio = 0xd0000000;

  explicit TestMachine(const char* modelName = "x86-64-v3");
  ~TestMachine();

  void real();         ///< flat bases 0 for DS, ES, SS; CS 0x1000
  void virtual8086();  ///< as real(), with a 32-bit supervisor underneath
  void protected32();  ///< flat, no paging, CPL 0
  void protected16();
  void long64(unsigned cpl = 0);

  void code(std::initializer_list<int> bytes) { code(kCode, bytes); }
  void code(std::uint64_t address, std::initializer_list<int> bytes);
  void code(const std::vector<std::uint8_t>& bytes);
  /// Runs one instruction; expects no exception.
  void step();
  /// Runs one instruction and returns the vector whose handler it ended in (each handler is HLT at its own address), or
  /// -1.
  int stepVector();
  /// Runs until HLT or `limit`.
  std::uint64_t runToHalt(std::uint64_t limit = 1'000'000);

  template <class T>
  T read(std::uint64_t address) {
    T value{};
    EXPECT_TRUE(memory->readObject(Gpa{address}, value));
    return value;
  }
  template <class T>
  void write(std::uint64_t address, T value) {
    EXPECT_TRUE(memory->writeObject(Gpa{address}, value));
  }
  std::uint64_t& gpr(unsigned n) { return cpu->state.gpr[n]; }
  std::uint64_t& flags() { return cpu->state.rflags; }

  std::unique_ptr<GuestMemory> memory;
  std::unique_ptr<x86::CpuModel> model;
  std::unique_ptr<x86::Cpu> cpu;
  TestEnvironment environment;

 private:
  void buildTables();
  void segment(x86::Segment s, std::uint16_t selector, std::uint64_t base, std::uint32_t limit,
               std::uint16_t attributes);

  std::unique_ptr<ContextOwner> owner_;
};

}  // namespace lodge::interpret
