// SPDX-License-Identifier: Apache-2.0
#include "x86/test_machine.h"

#include <ostream>

namespace lodge::x86 {

// The engines' folders bring these; here nothing is ever live.

void PrintTo(const Raised& raised, std::ostream* out) {
  *out << "vector " << raised.vector << " code 0x" << std::hex << raised.code << " address 0x" << raised.address
       << std::dec;
}

TestMachine::TestMachine(CpuVendor vendor, std::uint64_t memoryBytes) {
  memory = std::move(*GuestMemory::create(memoryBytes));
  model->name = "test";
  model->vendor = vendor;
  model->features = ~0ull;
  model->xcr0Supported = 7;
  model->tscHz = 2'000'000'000;
  model->gigabytePages = true;
  model->linearAddressBits = 57;
  model->cr4Supported = 0x77'1fff;
  model->eferSupported = efer::sce | efer::lme | efer::nxe;
  cpu->memory = memory.get();
  cpu->environment = &environment;
  cpu->model = model.get();
  cpu->listener = &listener;
  resetCpu(*cpu, false);
  listener = {};
}

std::uint64_t TestMachine::descriptor(std::uint32_t base, std::uint32_t limit, unsigned access, unsigned flags) {
  return (limit & 0xffffull) | (base & 0xff'ffffull) << 16 | std::uint64_t{access} << 40 |
         ((limit >> 16) & 0xfull) << 48 | std::uint64_t{flags} << 52 | (base >> 24 & 0xffull) << 56;
}

std::uint64_t TestMachine::gate(std::uint16_t selector, std::uint32_t offset, unsigned access, unsigned extra) {
  return (offset & 0xffffull) | std::uint64_t{selector} << 16 | std::uint64_t{extra} << 32 |
         std::uint64_t{access} << 40 | (offset & 0xffff'0000ull) << 32;
}

void TestMachine::setDescriptor(std::uint16_t selector, std::uint64_t low, std::uint64_t high) {
  std::uint64_t table = (selector & 4) != 0 ? at::ldt : at::gdt;
  store(table + (selector & 0xfff8u), low);
  if (high != 0) store(table + (selector & 0xfff8u) + 8, high);
}

void TestMachine::setGate(unsigned vector, std::uint16_t selector, std::uint64_t offset, unsigned access,
                          unsigned ist) {
  bool wide = (state().efer & efer::lma) != 0;
  std::uint64_t low = gate(selector, static_cast<std::uint32_t>(offset), access, ist);
  store(at::idt + vector * (wide ? 16u : 8u), low);
  if (wide) store(at::idt + vector * 16u + 8, offset >> 32);
}

void TestMachine::tables(bool longMode) {
  CpuState& s = state();
  setDescriptor(0, 0);
  setDescriptor(sel::code0, descriptor(0, 0xfffff, 0x9a, 0xc));
  setDescriptor(sel::data0, descriptor(0, 0xfffff, 0x92, 0xc));
  setDescriptor(sel::code3, descriptor(0, 0xfffff, 0xfa, 0xc));
  setDescriptor(sel::data3, descriptor(0, 0xfffff, 0xf2, 0xc));
  setDescriptor(sel::code64, descriptor(0, 0xfffff, 0x9a, 0xa));
  setDescriptor(sel::code64User, descriptor(0, 0xfffff, 0xfa, 0xa));
  setDescriptor(sel::tss, descriptor(at::tss, 0x2067, 0x89, 0));
  setDescriptor(sel::ldt, descriptor(at::ldt, 0xff, 0x82, 0));
  setDescriptor(sel::conforming, descriptor(0, 0xfffff, 0x9e, longMode ? 0xa : 0xc));
  setDescriptor(sel::notPresent, descriptor(0, 0xfffff, 0x72, 0xc));
  setDescriptor(sel::tss2, descriptor(at::tss2, 0x67, 0x89, 0));
  setDescriptor(sel::code1, descriptor(0, 0xfffff, 0xba, longMode ? 0xa : 0xc));
  setDescriptor(sel::data1, descriptor(0, 0xfffff, 0xb2, 0xc));
  setDescriptor(sel::readOnly, descriptor(0, 0xfffff, 0x90, 0xc));
  setDescriptor(sel::executeOnly, descriptor(0, 0xfffff, 0x98, 0xc));
  setDescriptor(sel::expandDown, descriptor(0, 0xfff, 0x96, 0x4));
  s.gdtr = {at::gdt, 0xbf, 0};
  s.idtr = {at::idt, longMode ? 0xfffu : 0x7ffu, 0};
  s.ldtr = {at::ldt, 0xff, sel::ldt, 0x82};
  s.tr = {at::tss, 0x2067, sel::tss, 0x8b};
  for (unsigned vector = 0; vector < 256; ++vector) {
    setGate(vector, longMode ? sel::code64 : sel::code0, 0x10000 + vector, 0x8e);
  }
}

void TestMachine::real() {
  CpuState& s = state();
  for (SegmentRegister& segment : s.segment) segment = {0, 0xffff, 0, 0x93};
  s.idtr = {0, 0x3ff, 0};
  s.rip = at::code;
  s.gpr[rsp] = at::stack0;
}

void TestMachine::protected32(unsigned cpl) {
  CpuState& s = state();
  s.cr0 = cr0::pe | cr0::et;
  tables(false);
  store<std::uint32_t>(at::tss + 4, at::stack0);
  store<std::uint32_t>(at::tss + 8, sel::data0);
  store<std::uint32_t>(at::tss + 12, at::stack0 - 0x400);
  store<std::uint32_t>(at::tss + 16, sel::data1 | 1);
  store<std::uint16_t>(at::tss + 102, 104);
  s.rip = at::code;
  s.gpr[rsp] = cpl == 0 ? at::stack0 : at::stack3;
  setCpl(cpl);
}

void TestMachine::long64(unsigned cpl, bool userPages) {
  CpuState& s = state();
  s.cr0 = cr0::pe | cr0::et | cr0::wp | cr0::pg;
  s.cr4 = cr4::pae | cr4::pge | cr4::osfxsr;
  s.efer = efer::lme | efer::lma | efer::nxe | efer::sce;
  std::uint64_t rights = userPages ? 7 : 3;
  store(at::pageTables, (at::pageTables + 0x1000) | rights);
  store(at::pageTables + 0x1000, (at::pageTables + 0x2000) | rights);
  for (std::uint64_t i = 0; i < 4; ++i) store(at::pageTables + 0x2000 + i * 8, i << 21 | 0x80 | rights);
  s.cr3 = at::pageTables;
  tables(true);
  store<std::uint64_t>(at::tss + 4, at::stack0);
  store<std::uint64_t>(at::tss + 0x24, at::ist);
  store<std::uint16_t>(at::tss + 102, 104);
  s.rip = at::code;
  s.gpr[rsp] = cpl == 0 ? at::stack0 : at::stack3;
  setCpl(cpl);
}

void TestMachine::mapSmallPages() {
  for (std::uint64_t i = 0; i < 512; ++i) store(at::pageTables + 0x4000 + i * 8, i << 12 | 7);
  store(at::pageTables + 0x2000, (at::pageTables + 0x4000) | 7);
}

void TestMachine::setCpl(unsigned cpl) {
  CpuState& s = state();
  bool wide = (s.efer & efer::lma) != 0;
  auto shift = static_cast<std::uint16_t>(cpl << 5);
  std::uint16_t code = cpl == 3 ? (wide ? sel::code64User : sel::code3) : (wide ? sel::code64 : sel::code0);
  std::uint16_t data = cpl == 3 ? sel::data3 : sel::data0;
  if (cpl == 1) code = sel::code1 | 1, data = sel::data1 | 1;
  s.segment[cs] = {0, 0xffff'ffff, code, static_cast<std::uint16_t>((wide ? 0xa09b : 0xc09b) | shift)};
  for (Segment segment : {ss, ds, es, fs, gs}) {
    s.segment[segment] = {0, 0xffff'ffff, data, static_cast<std::uint16_t>(0xc093 | shift)};
  }
  s.cpl = static_cast<std::uint8_t>(cpl);
}

}  // namespace lodge::x86
