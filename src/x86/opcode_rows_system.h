// SPDX-License-Identifier: Apache-2.0
// Rows of I/O, system, state and fence instructions (SDM vol. 2, appendix A, tables ). See
// opcode_row.h. Not here, and so #UD: VMX, SVM, SMX, SGX, MPX (its opcodes are NOPs, as without it), TSX, CET, Key
// Locker, 3DNow!, XOP, FMA4, TBM.
#pragma once

#include "x86/opcode_row.h"

namespace lodge::x86::table {

constexpr void addIoRows(RowList& t) {
  auto io = [&](Row r) { t.add(r.cls(OpClass::io)); };
  io(row0(0xe4, Op::in, "in", "=Ab Ib"));
  io(row0(0xe5, Op::in, "in", "=Av Ib"));
  io(row0(0xe6, Op::out, "out", "Ab Ib"));
  io(row0(0xe7, Op::out, "out", "Av Ib"));
  io(row0(0xec, Op::in, "in", "=Ab D"));
  io(row0(0xed, Op::in, "in", "=Av D"));
  io(row0(0xee, Op::out, "out", "Ab D"));
  io(row0(0xef, Op::out, "out", "Av D"));
}

constexpr void addDescriptorRows(RowList& t) {
  auto sys = [&](Row r) { t.add(r.cls(OpClass::system)); };
  sys(row1(0x00, Op::sldt, "sldt", "=Ev").reg(0).size(2));
  sys(row1(0x00, Op::str, "str", "=Ev").reg(1).size(2));
  sys(row1(0x00, Op::lldt, "lldt", "Ew").reg(2).priv());
  sys(row1(0x00, Op::ltr, "ltr", "Ew").reg(3).priv());
  sys(row1(0x00, Op::verr, "verr", "Ew").reg(4).f(0, fZ));
  sys(row1(0x00, Op::verw, "verw", "Ew").reg(5).f(0, fZ));
  sys(row1(0x01, Op::sgdt, "sgdt", "=Ms").reg(0));
  sys(row1(0x01, Op::sidt, "sidt", "=Ms").reg(1));
  sys(row1(0x01, Op::lgdt, "lgdt", "Ms").reg(2).priv());
  sys(row1(0x01, Op::lidt, "lidt", "Ms").reg(3).priv());
  sys(row1(0x01, Op::smsw, "smsw", "=Ev").reg(4).size(2));
  sys(row1(0x01, Op::lmsw, "lmsw", "Ew").reg(6).priv());
  sys(row1(0x01, Op::invlpg, "invlpg", "M").reg(7).priv());
  sys(row1(0x02, Op::lar, "lar", "+Gv Ew").f(0, fZ));
  sys(row1(0x03, Op::lsl, "lsl", "+Gv Ew").f(0, fZ));
  sys(row0(0x63, Op::arpl, "arpl", "+Ew Gw").notIn64().attr(attribute::invalid64).f(0, fZ));
}

/// 0F 01 with a register form: one instruction a ModRM byte.
constexpr void addGroup7RegisterRows(RowList& t) {
  auto add = [&](unsigned modrm, Op op, const char* name, Feature feature = Feature::base) {
    return row1(0x01, op, name).cls(OpClass::system).ft(feature).reg((modrm >> 3) & 7).rm(modrm & 7);
  };
  t.add(add(0xc1, Op::vmcall, "vmcall").pp(np));
  t.add(add(0xc8, Op::monitor, "monitor", Feature::monitor).pp(np).priv());
  t.add(add(0xc9, Op::mwait, "mwait", Feature::monitor).pp(np).priv());
  t.add(add(0xca, Op::clac, "clac", Feature::smap).pp(np));
  t.add(add(0xcb, Op::stac, "stac", Feature::smap).pp(np));
  t.add(add(0xd0, Op::xgetbv, "xgetbv", Feature::xsave).pp(np));
  t.add(add(0xd1, Op::xsetbv, "xsetbv", Feature::xsave).pp(np).priv());
  t.add(add(0xd9, Op::vmmcall, "vmmcall").pp(np66));
  t.add(add(0xee, Op::rdpkru, "rdpkru", Feature::pku).pp(np));
  t.add(add(0xef, Op::wrpkru, "wrpkru", Feature::pku).pp(np));
  t.add(add(0xf8, Op::swapgs, "swapgs").only64().priv());
  t.add(add(0xf9, Op::rdtscp, "rdtscp", Feature::rdtscp));
}

constexpr void addControlRows(RowList& t) {
  // mod is ignored: the operand is always a register. CR0, 2, 3, 4 and (with REX.R) 8 exist; the decoder checks.
  auto add = [&](unsigned opcode, Op op, std::string_view operands, std::uint8_t set) {
    Row r = row1(opcode, op, "mov", operands).priv().f64().regSet(set);
    r.mods = 3;
    // Flags are left undefined by the SDM's word; no processor touches them, and the APM says "none".
    t.add(r);
  };
  add(0x20, Op::mov_from_cr, "=Ry Ky", 0x1d);
  add(0x21, Op::mov_from_dr, "=Ry Ky", 0xff);
  add(0x22, Op::mov_to_cr, "=Ky Ry", 0x1d);
  add(0x23, Op::mov_to_dr, "=Ky Ry", 0xff);
}

constexpr void addSystemRows(RowList& t) {
  addIoRows(t);
  addDescriptorRows(t);
  addGroup7RegisterRows(t);
  addControlRows(t);
  auto sys = [&](Row r) { t.add(r.cls(OpClass::system)); };
  sys(row0(0xf4, Op::hlt, "hlt").priv());
  sys(row0(0xfa, Op::cli, "cli"));
  sys(row0(0xfb, Op::sti, "sti"));
  sys(row1(0x05, Op::syscall, "syscall").f(fAll | fD, fAll | fD).ft(Feature::syscall));
  sys(row1(0x07, Op::sysret, "sysret").priv().f(0, fAll | fD).ft(Feature::syscall));
  sys(row1(0x34, Op::sysenter, "sysenter"));
  sys(row1(0x35, Op::sysexit, "sysexit").priv());
  sys(row1(0x06, Op::clts, "clts").priv());
  sys(row1(0x08, Op::invd, "invd").priv());
  sys(row1(0x09, Op::wbinvd, "wbinvd").priv());
  sys(row1(0x30, Op::wrmsr, "wrmsr").priv());
  sys(row1(0x31, Op::rdtsc, "rdtsc"));
  sys(row1(0x32, Op::rdmsr, "rdmsr").priv());
  sys(row1(0x33, Op::rdpmc, "rdpmc"));
  sys(row1(0xa2, Op::cpuid, "cpuid"));
  sys(row1(0xaa, Op::rsm, "rsm").f(0, fAll | fD));
  sys(row(2, 0x82, Op::invpcid, "invpcid", "Gy Mdq").pp(p66).priv().f64().ft(Feature::invpcid));
  sys(row1(0xc7, Op::rdpid, "rdpid", "=Ry").reg(7).f64().pp(pF3).ft(Feature::rdpid));
  sys(row1(0xae, Op::rdfsbase, "rdfsbase", "=Ry").reg(0).pp(pF3).only64().ft(Feature::fsgsbase));
  sys(row1(0xae, Op::rdgsbase, "rdgsbase", "=Ry").reg(1).pp(pF3).only64().ft(Feature::fsgsbase));
  sys(row1(0xae, Op::wrfsbase, "wrfsbase", "Ry").reg(2).pp(pF3).only64().ft(Feature::fsgsbase));
  sys(row1(0xae, Op::wrgsbase, "wrgsbase", "Ry").reg(3).pp(pF3).only64().ft(Feature::fsgsbase));
}

constexpr void addStateRows(RowList& t) {
  using namespace attribute;
  auto sys = [&](Row r) { t.add(r.cls(OpClass::system)); };
  sys(row1(0xae, Op::fxsave, "fxsave", "=Mfx").reg(0).pp(np).attr(x87).ft(Feature::fxsr));
  sys(row1(0xae, Op::fxrstor, "fxrstor", "Mfx").reg(1).pp(np).attr(x87).ft(Feature::fxsr));
  sys(row1(0xae, Op::ldmxcsr, "ldmxcsr", "Md").reg(2).pp(np).attr(sse).ft(Feature::sse));
  sys(row1(0xae, Op::stmxcsr, "stmxcsr", "=Md").reg(3).pp(np).attr(sse).ft(Feature::sse));
  sys(row1(0xae, Op::xsave, "xsave", "+Mxs").reg(4).pp(np).ft(Feature::xsave));
  sys(row1(0xae, Op::xrstor, "xrstor", "Mxs").reg(5).pp(np).ft(Feature::xsave));
  sys(row1(0xae, Op::xsaveopt, "xsaveopt", "+Mxs").reg(6).pp(np).ft(Feature::xsaveopt));
  sys(row1(0xc7, Op::xrstors, "xrstors", "Mxs").reg(3).pp(np).priv().ft(Feature::xsaves));
  sys(row1(0xc7, Op::xsavec, "xsavec", "=Mxs").reg(4).pp(np).ft(Feature::xsavec));
  sys(row1(0xc7, Op::xsaves, "xsaves", "+Mxs").reg(5).pp(np).priv().ft(Feature::xsaves));
  auto vex = [&](Row r) {
    r.encoding = Encoding::vex;
    sys(r.attr(avx).ft(Feature::avx).l(0));
  };
  vex(row1(0xae, Op::ldmxcsr, "vldmxcsr", "Md").reg(2).pp(np));
  vex(row1(0xae, Op::stmxcsr, "vstmxcsr", "=Md").reg(3).pp(np));
  sys(row0(0x9b, Op::fwait, "fwait").attr(x87));
  sys(row1(0x77, Op::emms, "emms").pp(np).attr(mmx).ft(Feature::mmx));
}

constexpr void addHintRows(RowList& t) {
  t.add(row1(0xae, Op::clflush, "clflush", "Mb").reg(7).pp(np).ft(Feature::clflush));
  t.add(row1(0xae, Op::clflush, "clflushopt", "Mb").reg(7).pp(p66).ft(Feature::clflushopt));
  t.add(row1(0xae, Op::clflush, "clwb", "Mb").reg(6).pp(p66).ft(Feature::clwb));
  t.add(row1(0xae, Op::lfence, "lfence").reg(5).regOnly().pp(np).ft(Feature::sse2));
  t.add(row1(0xae, Op::mfence, "mfence").reg(6).regOnly().pp(np).ft(Feature::sse2));
  t.add(row1(0xae, Op::sfence, "sfence").reg(7).regOnly().pp(np).ft(Feature::sse));
  // Hints: the memory operand is neither read nor translated. Reserved ones are NOPs too.
  auto hint = [&](unsigned opcode, Op op, const char* name) {
    return row1(opcode, op, name, "Ev").size(memory_size::none);
  };
  auto add = [&](Row r) {
    r.info.attributes &= ~attribute::readsRm;
    t.add(r);
  };
  add(hint(0x0d, Op::prefetch, "prefetchw").regSet(0xff).mem().ft(Feature::prefetchw));
  add(hint(0x0d, Op::nop, "nop").regOnly());
  add(hint(0x18, Op::prefetch, "prefetchnta").reg(0).mem());
  add(hint(0x18, Op::prefetch, "prefetcht0").reg(1).mem());
  add(hint(0x18, Op::prefetch, "prefetcht1").reg(2).mem());
  add(hint(0x18, Op::prefetch, "prefetcht2").reg(3).mem());
  add(hint(0x18, Op::nop, "nop").regSet(0xf0).mem());
  add(hint(0x18, Op::nop, "nop").regOnly());
  for (unsigned opcode = 0x19; opcode < 0x20; ++opcode) add(hint(opcode, Op::nop, "nop"));
}

}  // namespace lodge::x86::table
