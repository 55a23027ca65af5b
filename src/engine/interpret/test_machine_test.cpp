// SPDX-License-Identifier: Apache-2.0
#include "engine/interpret/test_machine.h"

namespace lodge::interpret {

namespace cr0 = x86::cr0;
namespace cr4 = x86::cr4;
namespace efer = x86::efer;

TestMachine::TestMachine(const char* modelName) {
  auto ram = GuestMemory::create(16_MiB);
  auto made = x86::makeCpuModel(modelName, 1);
  if (!ram || !made) std::abort();
  memory = std::move(*ram);
  model = std::move(*made);
  cpu = std::make_unique<x86::Cpu>();
  cpu->memory = memory.get();
  cpu->model = model.get();
  cpu->environment = &environment;
  auto owner = ContextOwner::create(*cpu);
  if (!owner) std::abort();
  owner_ = std::move(*owner);
  x86::resetCpu(*cpu, false);
  buildTables();
}

TestMachine::~TestMachine() {
  cpu->parkFpu();
}

void TestMachine::segment(x86::Segment s, std::uint16_t selector, std::uint64_t base, std::uint32_t limit,
                          std::uint16_t attributes) {
  cpu->state.segment[s] = {base, limit, selector, attributes};
}

/// GDT: 08 code64, 10 data, 18 code32, 20 code16, 28 user code64 | 3, 30 user data | 3, 38 TSS (16 bytes), 48 user
/// code32.
void TestMachine::buildTables() {
  const std::uint64_t gdt[] = {0,
                               0x00af9b000000ffff,
                               0x00cf93000000ffff,
                               0x00cf9b000000ffff,
                               0x000f9b000000ffff,
                               0x00affb000000ffff,
                               0x00cff3000000ffff,
                               0x00008b0000000067 | (kTss & 0xffffff) << 16,
                               0,
                               0x00cffb000000ffff};
  for (unsigned i = 0; i < std::size(gdt); ++i) write(kGdt + 8 * i, gdt[i]);
  // Identity map of 4 GiB in 2 MiB pages.
  write(kTables, (kTables + 0x1000) | 7);
  for (std::uint64_t i = 0; i < 4; ++i) write(kTables + 0x1000 + 8 * i, (kTables + 0x2000 + 0x1000 * i) | 7);
  for (std::uint64_t i = 0; i < 4 * 512; ++i) write(kTables + 0x2000 + 8 * i, (i << 21) | 0xe7);
  write(kTss + 4, kStack - 0x1000);
  for (unsigned v = 0; v < 256; ++v) write(kHandlers + 16 * v, std::uint8_t{0xf4});
}

void TestMachine::real() {
  x86::resetCpu(*cpu, false);
  auto& s = cpu->state;
  for (auto seg : {x86::es, x86::ss, x86::ds, x86::fs, x86::gs}) segment(seg, 0, 0, 0xffff, 0x93);
  segment(x86::cs, 0x1000, kCode, 0xffff, 0x9b);
  s.idtr = {0, 0x3ff, 0};
  for (std::uint32_t v = 0; v < 256; ++v) write(4 * v, static_cast<std::uint32_t>((kHandlers / 16) << 16 | 16 * v));
  s.rip = 0;
  s.gpr[x86::rsp] = 0xf000;
  s.rflags = 2;
  s.cr4 = cr4::osfxsr | cr4::osxmmexcpt;
  x86::clearTlb(*cpu);
}

void TestMachine::protected32() {
  x86::resetCpu(*cpu, false);
  auto& s = cpu->state;
  s.cr0 = cr0::pe | cr0::et | cr0::ne | cr0::mp;
  s.cr4 = cr4::osfxsr | cr4::osxmmexcpt | cr4::osxsave;
  s.xcr0 = 7;
  for (auto seg : {x86::es, x86::ss, x86::ds, x86::fs, x86::gs}) segment(seg, 0x10, 0, 0xffffffff, 0xc093);
  segment(x86::cs, 0x18, 0, 0xffffffff, 0xc09b);
  s.gdtr = {kGdt, 0x4f, 0};
  s.idtr = {kIdt, 0x7ff, 0};
  for (std::uint64_t v = 0; v < 256; ++v) {
    std::uint64_t handler = kHandlers + 16 * v;
    write(kIdt + 8 * v, (handler & 0xffff) | 0x18ull << 16 | 0xee00ull << 32 | (handler >> 16) << 48);
  }
  s.tr = {kTss, 0x67, 0x38, 0x8b};
  write(kTss + 4, static_cast<std::uint32_t>(kStack - 0x1000));
  write(kTss + 8, std::uint32_t{0x10});
  s.rip = kCode;
  s.gpr[x86::rsp] = kStack;
  s.rflags = 2;
  x86::clearTlb(*cpu);
}

void TestMachine::protected16() {
  protected32();
  segment(x86::cs, 0x20, kCode, 0xffff, 0x009b);
  segment(x86::ss, 0x10, 0, 0xffff, 0x0093);
  cpu->state.rip = 0;
  cpu->state.gpr[x86::rsp] = 0xf000;
}

void TestMachine::virtual8086() {
  protected32();
  auto& s = cpu->state;
  for (auto seg : {x86::es, x86::ss, x86::ds, x86::fs, x86::gs}) segment(seg, 0, 0, 0xffff, 0xf3);
  segment(x86::cs, 0x1000, kCode, 0xffff, 0xf3);
  s.rip = 0;
  s.gpr[x86::rsp] = 0xf000;
  s.rflags = 2 | x86::flag::vm | x86::flag::iopl;
  s.cpl = 3;
}

void TestMachine::long64(unsigned cpl) {
  x86::resetCpu(*cpu, false);
  auto& s = cpu->state;
  s.cr0 = cr0::pe | cr0::et | cr0::ne | cr0::mp | cr0::wp | cr0::am | cr0::pg;
  s.cr3 = kTables;
  s.cr4 = cr4::pae | cr4::pge | cr4::osfxsr | cr4::osxmmexcpt | cr4::osxsave | cr4::fsgsbase;
  s.efer = efer::lme | efer::lma | efer::nxe | efer::sce;
  s.xcr0 = 7;
  bool user = cpl == 3;
  for (auto seg : {x86::es, x86::ss, x86::ds, x86::fs, x86::gs})
    segment(seg, user ? 0x33 : 0x10, 0, 0xffffffff, user ? 0xc0f3 : 0xc093);
  segment(x86::cs, user ? 0x2b : 0x08, 0, 0xffffffff, user ? 0xa0fb : 0xa09b);
  s.cpl = static_cast<std::uint8_t>(cpl);
  s.gdtr = {kGdt, 0x4f, 0};
  s.idtr = {kIdt, 0xfff, 0};
  for (std::uint64_t v = 0; v < 256; ++v) {
    std::uint64_t handler = kHandlers + 16 * v;
    write(kIdt + 16 * v, (handler & 0xffff) | 0x08ull << 16 | 0xee00ull << 32 | (handler >> 16) << 48);
    write(kIdt + 16 * v + 8, std::uint64_t{0});
  }
  s.tr = {kTss, 0x67, 0x38, 0x8b};
  write(kTss + 4, kStack - 0x1000);
  s.rip = kCode;
  s.gpr[x86::rsp] = kStack;
  s.rflags = 2;
  x86::clearTlb(*cpu);
}

void TestMachine::code(std::uint64_t address, std::initializer_list<int> bytes) {
  for (int b : bytes) write(address++, static_cast<std::uint8_t>(b));
}
void TestMachine::code(const std::vector<std::uint8_t>& bytes) {
  std::uint64_t at = kCode;
  for (std::uint8_t b : bytes) write(at++, b);
}

int TestMachine::stepVector() {
  interpret::step(*cpu);
  std::uint64_t linear = cpu->state.rip + (cpu->mode64() ? 0 : cpu->state.segment[x86::cs].base);
  cpu->parkFpu();
  if (linear < kHandlers || linear >= kHandlers + 16 * 256) return -1;
  return static_cast<int>((linear - kHandlers) / 16);
}

void TestMachine::step() {
  ASSERT_EQ(stepVector(), -1);
}

std::uint64_t TestMachine::runToHalt(std::uint64_t limit) {
  std::uint64_t count = 0;
  while (count < limit && cpu->state.activity == x86::Activity::running) count += interpret::run(*cpu, limit - count);
  cpu->parkFpu();
  return count;
}

}  // namespace lodge::interpret
