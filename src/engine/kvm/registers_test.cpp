// SPDX-License-Identifier: Apache-2.0
#include "engine/kvm/registers.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "base/bytes.h"

namespace lodge::kvm {
namespace {

using x86::CpuState;

TEST(KvmRegisters, GeneralRegistersByName) {
  CpuState state{};
  for (unsigned i = 0; i < 16; ++i) state.gpr[i] = 100 + i;
  state.rip = 1;
  state.rflags = 2;
  kvm_regs regs{};
  toKvm(state, regs);
  EXPECT_EQ(regs.rax, 100u);
  EXPECT_EQ(regs.rcx, 101u);
  EXPECT_EQ(regs.rdx, 102u);
  EXPECT_EQ(regs.rbx, 103u);
  EXPECT_EQ(regs.rsp, 104u);
  EXPECT_EQ(regs.rbp, 105u);
  EXPECT_EQ(regs.rsi, 106u);
  EXPECT_EQ(regs.rdi, 107u);
  EXPECT_EQ(regs.r8, 108u);
  EXPECT_EQ(regs.r15, 115u);
  CpuState back{};
  fromKvm(regs, back);
  EXPECT_EQ(std::memcmp(back.gpr, state.gpr, sizeof state.gpr), 0);
  EXPECT_EQ(back.rip, 1u);
  EXPECT_EQ(back.rflags, 2u);
}

TEST(KvmRegisters, SegmentsGoThereAndBack) {
  std::mt19937 random(7);
  for (int i = 0; i < 1000; ++i) {
    x86::SegmentRegister segment{random(), static_cast<std::uint32_t>(random()), static_cast<std::uint16_t>(random()),
                                 static_cast<std::uint16_t>(random() & 0xf0ff)};
    kvm_segment middle = toKvm(segment);
    x86::SegmentRegister back = fromKvm(middle);
    EXPECT_EQ(back.base, segment.base);
    EXPECT_EQ(back.limit, segment.limit);
    EXPECT_EQ(back.selector, segment.selector);
    EXPECT_EQ(back.attributes, segment.attributes);
    EXPECT_EQ(middle.unusable, !segment.present());
  }
  // A 64-bit code segment, as KVM spells it.
  kvm_segment code = toKvm(x86::SegmentRegister{0, 0xffff'ffff, 0x10, 0xa09b});
  EXPECT_EQ(code.type, 11);
  EXPECT_EQ(code.s, 1);
  EXPECT_EQ(code.dpl, 0);
  EXPECT_EQ(code.l, 1);
  EXPECT_EQ(code.db, 0);
  EXPECT_EQ(code.g, 1);
}

TEST(KvmRegisters, SystemRegistersAndPrivilege) {
  CpuState state{};
  state.cr0 = x86::cr0::pe | x86::cr0::pg;
  state.cr4 = x86::cr4::pae;
  state.cr3 = 0x5000;
  state.cr2 = 0x1234;
  state.gdtr = {0x1000, 0x7f, 0};
  state.idtr = {0x2000, 0xfff, 0};
  state.apicBase = 0xfee0'0900;
  for (unsigned i = 0; i < 4; ++i) state.pdpte[i] = 0x1000 * i + 1;
  state.segment[x86::ss] = {0, 0xffff'ffff, 0x2b, 0xc0f3};
  state.cpl = 3;
  kvm_sregs2 sregs{};
  toKvm(state, sregs);
  EXPECT_EQ(sregs.flags, std::uint64_t{KVM_SREGS2_FLAGS_PDPTRS_VALID});
  CpuState back{};
  fromKvm(sregs, 0, back);
  EXPECT_EQ(back.cr0, state.cr0);
  EXPECT_EQ(back.cr2, state.cr2);
  EXPECT_EQ(back.cr3, state.cr3);
  EXPECT_EQ(back.cr4, state.cr4);
  EXPECT_EQ(back.pdpte[3], 0x3001u);
  EXPECT_EQ(back.gdtr.limit, 0x7fu);
  EXPECT_EQ(back.idtr.base, 0x2000u);
  EXPECT_EQ(back.cpl, 3);
  // A null SS in 64-bit kernel mode keeps its privilege level for AMD's processors.
  state.segment[x86::ss] = {0, 0, 0, 0};
  state.cpl = 0;
  state.efer = x86::efer::lma | x86::efer::lme;
  toKvm(state, sregs);
  EXPECT_EQ(sregs.flags, 0u);
  fromKvm(sregs, 0, back);
  EXPECT_EQ(back.cpl, 0);
  fromKvm(sregs, x86::flag::vm, back);
  EXPECT_EQ(back.cpl, 3);
  sregs.cr0 = 0;
  fromKvm(sregs, 0, back);
  EXPECT_EQ(back.cpl, 0);
}

TEST(KvmRegisters, ShadowsAndBlocking) {
  for (std::uint8_t shadow = 0; shadow <= 2; ++shadow) {
    CpuState state{};
    state.interruptShadow = shadow;
    state.nmiBlocked = 1;
    state.smm = 1;
    kvm_vcpu_events events{};
    toKvm(state, events);
    CpuState back{};
    fromKvm(events, back);
    EXPECT_EQ(back.interruptShadow, shadow);
    EXPECT_EQ(back.nmiBlocked, 1);
    EXPECT_EQ(back.smm, 1);
  }
}

TEST(KvmRegisters, WhatAWaitingExceptionIsYetToSetIsSet) {
  CpuState state{};
  state.cr2 = 1;
  state.dr[6] = 0xffff'4ff1;  // single-step, breakpoint 0
  kvm_vcpu_events events{};
  events.exception.pending = 1;
  events.exception.nr = 14;
  events.exception_payload = 0x1234;
  applyPayload(events, state);
  EXPECT_EQ(state.cr2, 1u) << "there is none";
  events.exception_has_payload = 1;
  applyPayload(events, state);
  EXPECT_EQ(state.cr2, 0x1234u);
  EXPECT_EQ(state.dr[6], 0xffff'4ff1u);
  events.exception.nr = 1;
  events.exception_payload = 0x1'1004;  // breakpoint 2, one that is enabled, in a transaction
  applyPayload(events, state);
  EXPECT_EQ(state.dr[6], 0xfffe'4ff4u);
  EXPECT_EQ(state.cr2, 0x1234u);
  events.exception.pending = 0;
  events.exception_payload = 1;
  applyPayload(events, state);
  EXPECT_EQ(state.dr[6], 0xfffe'4ff4u);
}

TEST(KvmRegisters, VectorStateKeepsOnlyComponentsOfTheModel) {
  CpuState state{};
  for (std::size_t i = 0; i < sizeof state.xsave; ++i) state.xsave[i] = static_cast<std::byte>(i * 7);
  storeLe(state.xsave + 512, std::uint64_t{0x2ff});
  XsaveArea area{};
  toKvm(state, 7, area);
  EXPECT_EQ(loadLe<std::uint64_t>(reinterpret_cast<std::byte*>(area.region) + 512), 7u);
  EXPECT_EQ(loadLe<std::uint64_t>(reinterpret_cast<std::byte*>(area.region) + 520), 0u);
  CpuState back{};
  fromKvm(area, 3, back);
  EXPECT_EQ(loadLe<std::uint64_t>(back.xsave + 512), 3u);
  EXPECT_EQ(std::memcmp(back.xsave + 576, state.xsave + 576, sizeof state.xsave - 576), 0);
  EXPECT_EQ(std::memcmp(back.xsave, state.xsave, 512), 0);
}

}  // namespace
}  // namespace lodge::kvm
