// SPDX-License-Identifier: Apache-2.0
// A CPU with RAM and a recording world around it, for this folder's unit tests and fuzz drivers.
#pragma once

#include <cstring>
#include <initializer_list>
#include <memory>
#include <vector>

#include "memory/guest_memory.h"
#include "x86/cpu.h"
#include "x86/cpu_model.h"
#include "x86/state.h"
#include "x86/system.h"

namespace lodge::x86 {

class FakeApic : public LocalApic {
 public:
  int acknowledge() override {
    if (pendingVectors.empty()) return -1;
    int vector = pendingVectors.back();
    pendingVectors.pop_back();
    return vector;
  }
  bool pending() const override { return !pendingVectors.empty(); }
  std::uint8_t taskPriority() const override { return cr8; }
  void setTaskPriority(std::uint8_t value) override { cr8 = value; }
  bool readMsr(std::uint32_t msr, std::uint64_t& value) override {
    if (msr == 0x8ff) return false;
    value = msr == 0x1b ? base : last;
    return true;
  }
  bool writeMsr(std::uint32_t msr, std::uint64_t value) override {
    if (msr == 0x8ff) return false;
    (msr == 0x1b ? base : last) = value;
    return true;
  }
  void reset() override { ++resets; }
  bool eoiMayBeSkipped() const override { return skippable; }
  void endOfInterrupt() override { ++eois; }

  std::vector<int> pendingVectors;  ///< the last is delivered first
  std::uint8_t cr8 = 0;
  std::uint64_t base = 0xfee0'0900, last = 0;
  int resets = 0, eois = 0;
  bool skippable = false;
};

class FakeEnvironment : public CpuEnvironment {
 public:
  struct Access {
    bool write;
    std::uint64_t gpa;
    unsigned size;
    std::uint64_t value;
  };
  std::uint64_t readPort(std::uint16_t, unsigned) override { return 0; }
  void writePort(std::uint16_t, unsigned, std::uint64_t) override {}
  std::uint64_t readMmio(Gpa gpa, unsigned size) override {
    // Each byte tells its own address.
    std::uint64_t value = 0;
    for (unsigned i = 0; i < size; ++i) value |= ((raw(gpa) + i) & 0xff) << (8 * i);
    accesses.push_back({false, raw(gpa), size, value});
    return value;
  }
  void writeMmio(Gpa gpa, unsigned size, std::uint64_t value) override {
    accesses.push_back({true, raw(gpa), size, value});
  }
  LocalApic& apic() override { return localApic; }
  std::int64_t hypercall(std::uint64_t number, const std::uint64_t (&arguments)[4]) override {
    hypercalls.push_back(number);
    return static_cast<std::int64_t>(arguments[0]);
  }
  Nanoseconds guestTime() override { return 5 * kNanosecondsPerSecond; }
  Nanoseconds wallClockBase() override { return 1'700'000'000 * kNanosecondsPerSecond; }

  FakeApic localApic;
  std::vector<Access> accesses;
  std::vector<std::uint64_t> hypercalls;
};

/// Counts what a translator would be told.
class FakeListener : public TranslationCacheListener {
 public:
  void flushPage(std::uint64_t linear) override { pages.push_back(linear); }
  void flushAll(bool globalToo) override { ++(globalToo ? allGlobal : all); }
  void flushPcid(std::uint16_t pcid) override { pcids.push_back(pcid); }
  void flushPcidPage(std::uint16_t pcid, std::uint64_t linear) override {
    pcids.push_back(pcid);
    pages.push_back(linear);
  }
  void flushEverything() override { ++everything; }
  void addressSpaceChanged(bool noFlush) override { ++(noFlush ? switchesNoFlush : switches); }
  void modeChanged() override { ++modes; }

  std::vector<std::uint64_t> pages;
  std::vector<std::uint16_t> pcids;
  int all = 0, allGlobal = 0, everything = 0, switches = 0, switchesNoFlush = 0, modes = 0;
};

/// Addresses of the tables that the mode functions set up.
namespace at {
inline constexpr std::uint64_t gdt = 0x1000, ldt = 0x2000, idt = 0x3000, tss = 0x4000, tss2 = 0x5000, stack0 = 0x9000,
                               stack3 = 0xa000, ist = 0xb000, code = 0xc000, pageTables = 0x10'0000;
}

/// Selectors in its GDT.
namespace sel {
inline constexpr std::uint16_t code0 = 0x08, data0 = 0x10, code3 = 0x18 | 3, data3 = 0x20 | 3, code64 = 0x28,
                               code64User = 0x30 | 3, tss = 0x38, ldt = 0x48, conforming = 0x58, notPresent = 0x60,
                               gate = 0x68, tss2 = 0x78, code1 = 0x88, data1 = 0x90, readOnly = 0x98,
                               executeOnly = 0xa0, expandDown = 0xa8, taskGate = 0xb0, free = 0xb8;
}

class TestMachine {
 public:
  explicit TestMachine(CpuVendor vendor = CpuVendor::amd, std::uint64_t memoryBytes = 8_MiB);

  Cpu& operator*() { return *cpu; }
  Cpu* operator->() { return cpu.get(); }
  CpuState& state() { return cpu->state; }

  template <class T>
  T load(std::uint64_t gpa) const {
    T value{};
    if (!memory->readObject(Gpa{gpa}, value)) value = T{};
    return value;
  }
  template <class T>
  void store(std::uint64_t gpa, T value) {
    [[maybe_unused]] bool stored = memory->writeObject(Gpa{gpa}, value);
  }

  /// A descriptor of code or data: `access` is its byte 5, `flags` its G D L AVL nibble.
  static std::uint64_t descriptor(std::uint32_t base, std::uint32_t limit, unsigned access, unsigned flags);
  static std::uint64_t gate(std::uint16_t selector, std::uint32_t offset, unsigned access, unsigned extra = 0);
  void setDescriptor(std::uint16_t selector, std::uint64_t low, std::uint64_t high = 0);
  void setGate(unsigned vector, std::uint16_t selector, std::uint64_t offset, unsigned access, unsigned ist = 0);

  /// CS:IP 0:0xc000, flat 64 KiB segments.
  void real();
  /// 32-bit protected mode without paging, flat; tables as in `at` and `sel`, a 32-bit TSS, every IDT vector an
  /// interrupt gate to code0:0x10000 + vector.
  void protected32(unsigned cpl = 0);
  /// Long mode with the first 8 MiB identity-mapped by 2 MiB pages (user and writable, unless told otherwise).
  void long64(unsigned cpl = 0, bool userPages = true);
  /// Same, with 4 KiB pages for the first 2 MiB; entryOf() gives the PTE's address.
  void mapSmallPages();
  static std::uint64_t entryOf(std::uint64_t linear) { return at::pageTables + 0x4000 + (linear >> 12) * 8; }
  /// Makes CPL, CS, SS what they are at that level.
  void setCpl(unsigned cpl);

  std::unique_ptr<CpuModel> model = std::make_unique<CpuModel>();
  std::unique_ptr<GuestMemory> memory;
  FakeEnvironment environment;
  FakeListener listener;
  std::unique_ptr<Cpu> cpu = std::make_unique<Cpu>();

 private:
  void tables(bool longMode);
};

/// What is in cpu.exception, for EXPECT_EQ; `none` without one.
struct Raised {
  int vector = -1;
  std::uint32_t code = 0;
  std::uint64_t address = 0;
  bool operator==(const Raised&) const = default;
};
inline Raised raised(Cpu& cpu) {
  const PendingException& e = cpu.exception;
  if (!e.valid) return {};
  return {e.vector, e.hasErrorCode ? e.errorCode : 0, e.address};
}
inline Raised take(Cpu& cpu) {
  Raised r = raised(cpu);
  cpu.exception.valid = false;
  return r;
}
inline constexpr Raised gp(std::uint32_t code) {
  return {13, code, 0};
}
inline constexpr Raised np(std::uint32_t code) {
  return {11, code, 0};
}
inline constexpr Raised ssFault(std::uint32_t code) {
  return {12, code, 0};
}
inline constexpr Raised ts(std::uint32_t code) {
  return {10, code, 0};
}
inline constexpr Raised ud() {
  return {6, 0, 0};
}
inline constexpr Raised pageFault(std::uint64_t address, std::uint32_t code) {
  return {14, code, address};
}

void PrintTo(const Raised& raised, std::ostream* out);

}  // namespace lodge::x86
