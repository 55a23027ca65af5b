// SPDX-License-Identifier: Apache-2.0
#include "engine/kvm/registers.h"

#include <cstring>
#include <utility>

#include "base/bytes.h"

namespace lodge::kvm {

namespace {

using x86::CpuState;

// In the order of the registers' encoding.
constexpr __u64 kvm_regs::*kGprs[16] = {&kvm_regs::rax, &kvm_regs::rcx, &kvm_regs::rdx, &kvm_regs::rbx,
                                        &kvm_regs::rsp, &kvm_regs::rbp, &kvm_regs::rsi, &kvm_regs::rdi,
                                        &kvm_regs::r8,  &kvm_regs::r9,  &kvm_regs::r10, &kvm_regs::r11,
                                        &kvm_regs::r12, &kvm_regs::r13, &kvm_regs::r14, &kvm_regs::r15};
// In the order of x86::Segment.
constexpr kvm_segment kvm_sregs2::*kSegments[x86::kSegmentCount] = {&kvm_sregs2::es, &kvm_sregs2::cs, &kvm_sregs2::ss,
                                                                    &kvm_sregs2::ds, &kvm_sregs2::fs, &kvm_sregs2::gs};

constexpr std::size_t kXstateBv = 512;

bool usesPdptes(const CpuState& state) {
  return (state.cr0 & x86::cr0::pg) != 0 && (state.cr4 & x86::cr4::pae) != 0 && (state.efer & x86::efer::lma) == 0;
}

}  // namespace

void toKvm(const CpuState& state, kvm_regs& regs) {
  for (unsigned i = 0; i < 16; ++i) regs.*kGprs[i] = state.gpr[i];
  regs.rip = state.rip;
  regs.rflags = state.rflags;
}

void fromKvm(const kvm_regs& regs, CpuState& state) {
  for (unsigned i = 0; i < 16; ++i) state.gpr[i] = regs.*kGprs[i];
  state.rip = regs.rip;
  state.rflags = regs.rflags;
}

kvm_segment toKvm(const x86::SegmentRegister& segment) {
  kvm_segment out{};
  auto bit = [&](unsigned n) { return static_cast<std::uint8_t>((segment.attributes >> n) & 1); };
  out.base = segment.base;
  out.limit = segment.limit;
  out.selector = segment.selector;
  out.type = static_cast<std::uint8_t>(segment.type());
  out.s = bit(4);
  out.dpl = static_cast<std::uint8_t>(segment.dpl());
  out.present = bit(7);
  out.avl = bit(12);
  out.l = bit(13);
  out.db = bit(14);
  out.g = bit(15);
  out.unusable = !segment.present();
  return out;
}

x86::SegmentRegister fromKvm(const kvm_segment& segment) {
  unsigned attributes = (segment.type & 15u) | (segment.s & 1u) << 4 | (segment.dpl & 3u) << 5 |
                        (segment.avl & 1u) << 12 | (segment.l & 1u) << 13 | (segment.db & 1u) << 14 |
                        (segment.g & 1u) << 15;
  if (segment.present != 0 && segment.unusable == 0) attributes |= 0x80;
  return {segment.base, segment.limit, segment.selector, static_cast<std::uint16_t>(attributes)};
}

void toKvm(const CpuState& state, kvm_sregs2& sregs) {
  for (unsigned i = 0; i < x86::kSegmentCount; ++i) sregs.*kSegments[i] = toKvm(state.segment[i]);
  // AMD's processors take the privilege level from here (APM vol. 2, 15.5.1).
  sregs.ss.dpl = state.cpl;
  sregs.ldt = toKvm(state.ldtr);
  sregs.tr = toKvm(state.tr);
  sregs.gdt = {state.gdtr.base, static_cast<std::uint16_t>(state.gdtr.limit), {}};
  sregs.idt = {state.idtr.base, static_cast<std::uint16_t>(state.idtr.limit), {}};
  sregs.cr0 = state.cr0;
  sregs.cr2 = state.cr2;
  sregs.cr3 = state.cr3;
  sregs.cr4 = state.cr4;
  sregs.efer = state.efer;
  sregs.apic_base = state.apicBase;
  sregs.flags = 0;
  if (usesPdptes(state)) {
    sregs.flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
    for (unsigned i = 0; i < 4; ++i) sregs.pdptrs[i] = state.pdpte[i];
  }
}

void fromKvm(const kvm_sregs2& sregs, std::uint64_t rflags, CpuState& state) {
  for (unsigned i = 0; i < x86::kSegmentCount; ++i) state.segment[i] = fromKvm(sregs.*kSegments[i]);
  state.ldtr = fromKvm(sregs.ldt);
  state.tr = fromKvm(sregs.tr);
  state.gdtr = {sregs.gdt.base, sregs.gdt.limit, 0};
  state.idtr = {sregs.idt.base, sregs.idt.limit, 0};
  state.cr0 = sregs.cr0;
  state.cr2 = sregs.cr2;
  state.cr3 = sregs.cr3;
  state.cr4 = sregs.cr4;
  state.efer = sregs.efer;
  if ((sregs.flags & KVM_SREGS2_FLAGS_PDPTRS_VALID) != 0) {
    for (unsigned i = 0; i < 4; ++i) state.pdpte[i] = sregs.pdptrs[i];
  }
  if ((state.cr0 & x86::cr0::pe) == 0) {
    state.cpl = 0;
  } else {
    state.cpl = (rflags & x86::flag::vm) != 0 ? 3 : static_cast<std::uint8_t>(sregs.ss.dpl & 3);
  }
}

void toKvm(const CpuState& state, kvm_debugregs& debug) {
  for (unsigned i = 0; i < 4; ++i) debug.db[i] = state.dr[i];
  debug.dr6 = state.dr[6];
  debug.dr7 = state.dr[7];
}

void fromKvm(const kvm_debugregs& debug, CpuState& state) {
  for (unsigned i = 0; i < 4; ++i) state.dr[i] = debug.db[i];
  state.dr[6] = debug.dr6;
  state.dr[7] = debug.dr7;
}

void toKvm(const CpuState& state, kvm_vcpu_events& events) {
  // Lodge: 1 after STI, 2 after MOV SS.
  events.interrupt.shadow = state.interruptShadow == 1   ? KVM_X86_SHADOW_INT_STI
                            : state.interruptShadow == 2 ? KVM_X86_SHADOW_INT_MOV_SS
                                                         : 0;
  events.nmi.masked = state.nmiBlocked;
  events.smi.smm = state.smm;
  events.smi.smm_inside_nmi = state.smmNmiBlocked;
  events.flags = KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SMM;
}

void fromKvm(const kvm_vcpu_events& events, CpuState& state) {
  bool movSs = (events.interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS) != 0;
  bool sti = (events.interrupt.shadow & KVM_X86_SHADOW_INT_STI) != 0;
  state.interruptShadow = movSs ? 2 : sti ? 1 : 0;
  state.nmiBlocked = events.nmi.masked;
  if ((events.flags & KVM_VCPUEVENT_VALID_SMM) == 0) return;
  state.smm = events.smi.smm;
  state.smmNmiBlocked = events.smi.smm_inside_nmi;
}

// SDM vol. 3, 18.2.3; a debug exception's payload has the form of VMX's pending debug exceptions (25.4.2): conditions
// are 1, those that are 0 in DR6, too, and bit 12 has no place there.
void applyPayload(const kvm_vcpu_events& events, CpuState& state) {
  if (events.exception.pending == 0 || events.exception_has_payload == 0) return;
  constexpr std::uint64_t kHits = 0xf, kActiveLow = 0xffff'0ff0, kAnyEnabled = 1 << 12;
  std::uint64_t payload = events.exception_payload;
  if (events.exception.nr == static_cast<std::uint8_t>(x86::Vector::pf)) state.cr2 = payload;
  if (events.exception.nr != static_cast<std::uint8_t>(x86::Vector::db)) return;
  std::uint64_t set = (state.dr[6] & ~kHits) | kActiveLow | payload;
  state.dr[6] = (set ^ (payload & kActiveLow)) & ~kAnyEnabled;
}

void toKvm(const CpuState& state, std::uint64_t components, XsaveArea& area) {
  static_assert(sizeof area.region == sizeof state.xsave);
  std::memcpy(area.region, state.xsave, sizeof area.region);
  auto* bytes = reinterpret_cast<std::byte*>(area.region);
  storeLe(bytes + kXstateBv, loadLe<std::uint64_t>(bytes + kXstateBv) & components);
  std::memset(bytes + kXstateBv + 8, 0, 56);  // the standard format, and reserved bytes
}

void fromKvm(const XsaveArea& area, std::uint64_t components, CpuState& state) {
  std::memcpy(state.xsave, area.region, sizeof state.xsave);
  storeLe(state.xsave + kXstateBv, loadLe<std::uint64_t>(state.xsave + kXstateBv) & components);
  std::memset(state.xsave + kXstateBv + 8, 0, 56);
}

}  // namespace lodge::kvm
