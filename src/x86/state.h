// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

namespace lodge::x86 {

/// General registers by their encoding (SDM vol. 2, table 2-2).
enum Gpr : std::uint8_t { rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15 };

/// Segment registers by their encoding.
enum Segment : std::uint8_t { es, cs, ss, ds, fs, gs, kSegmentCount };
inline constexpr std::uint8_t kNoSegment = 0xff;

namespace flag {
inline constexpr std::uint64_t cf = 1 << 0, reserved1 = 1 << 1, pf = 1 << 2, af = 1 << 4, zf = 1 << 6, sf = 1 << 7,
                               tf = 1 << 8, if_ = 1 << 9, df = 1 << 10, of = 1 << 11, iopl = 3 << 12, nt = 1 << 14,
                               rf = 1 << 16, vm = 1 << 17, ac = 1 << 18, vif = 1 << 19, vip = 1 << 20, id = 1 << 21;
inline constexpr std::uint64_t arithmetic = cf | pf | af | zf | sf | of;
}  // namespace flag

namespace cr0 {
inline constexpr std::uint64_t pe = 1 << 0, mp = 1 << 1, em = 1 << 2, ts = 1 << 3, et = 1 << 4, ne = 1 << 5,
                               wp = 1 << 16, am = 1 << 18, nw = 1 << 29, cd = 1 << 30, pg = 1u << 31;
}
namespace cr4 {
inline constexpr std::uint64_t vme = 1 << 0, pvi = 1 << 1, tsd = 1 << 2, de = 1 << 3, pse = 1 << 4, pae = 1 << 5,
                               mce = 1 << 6, pge = 1 << 7, pce = 1 << 8, osfxsr = 1 << 9, osxmmexcpt = 1 << 10,
                               umip = 1 << 11, la57 = 1 << 12, fsgsbase = 1 << 16, pcide = 1 << 17, osxsave = 1 << 18,
                               smep = 1 << 20, smap = 1 << 21, pke = 1 << 22;
}
namespace efer {
inline constexpr std::uint64_t sce = 1 << 0, lme = 1 << 8, lma = 1 << 10, nxe = 1 << 11, svme = 1 << 12,
                               ffxsr = 1 << 14;
}

/// Exception vectors (SDM vol. 3, table 6-1).
enum class Vector : std::uint8_t {
  de = 0,
  db = 1,
  nmi = 2,
  bp = 3,
  of = 4,
  br = 5,
  ud = 6,
  nm = 7,
  df = 8,
  ts = 10,
  np = 11,
  ss = 12,
  gp = 13,
  pf = 14,
  mf = 16,
  ac = 17,
  mc = 18,
  xm = 19,
  cp = 21,
};

/// Page-fault error code bits (SDM vol. 3, 4.7).
namespace pf {
inline constexpr std::uint32_t present = 1, write = 2, user = 4, reserved = 8, fetch = 16, protectionKey = 32;
}

/// A segment register with its hidden part. `attributes`: descriptor bits 40..55 as they lie there: type 0-3, S 4, DPL
/// 5-6, P 7, (limit 16-19 in 8-11, ignored), AVL 12, L 13, D/B 14, G 15. `limit` is in bytes, G already applied. A null
/// or unusable register has P = 0.
struct SegmentRegister {
  std::uint64_t base;
  std::uint32_t limit;
  std::uint16_t selector;
  std::uint16_t attributes;

  unsigned type() const { return attributes & 15u; }
  bool isSystem() const { return (attributes & 0x10) == 0; }
  unsigned dpl() const { return (attributes >> 5) & 3u; }
  bool present() const { return (attributes & 0x80) != 0; }
  bool longMode() const { return (attributes & 0x2000) != 0; }
  bool big() const { return (attributes & 0x4000) != 0; }
};

struct DescriptorTable {
  std::uint64_t base;
  std::uint32_t limit;
  std::uint32_t padding;
};

/// What a vCPU is doing when it does not execute.
enum class Activity : std::uint8_t { running, halted, waitForSipi, shutdown };

/// The architectural state of one vCPU: plain data, the same for every engine; it can be copied, saved and compared.
/// While an engine runs, general registers and flags may live elsewhere; they are right here whenever Vcpu::run() is
/// not on the stack and inside every call-out that an engine makes. Vector and x87 state: see Cpu::parkFpu().
struct alignas(64) CpuState {
  std::uint64_t gpr[16];
  std::uint64_t rip;
  std::uint64_t rflags;

  std::uint64_t cr0, cr2, cr3, cr4;  // CR8 is the local APIC's TPR
  std::uint64_t efer;
  std::uint64_t xcr0, xss;
  std::uint64_t dr[8];     // 4 and 5 unused
  std::uint64_t pdpte[4];  // the PDPTE registers of PAE paging (SDM vol. 3, 4.4.1)

  SegmentRegister segment[kSegmentCount];
  SegmentRegister ldtr, tr;
  DescriptorTable gdtr, idtr;

  std::uint8_t cpl;
  Activity activity;
  std::uint8_t interruptShadow;  ///< 1: after STI, 2: after MOV SS/POP SS; holds until the next instruction ended
  std::uint8_t nmiBlocked;       ///< from NMI delivery to IRET
  /// DR6 bits of data breakpoints that the running instruction hit, or that wait for the end of a MOV SS shadow.
  std::uint64_t pendingDebug;

  // MSRs. TSC: guest TSC = host TSC (by Cpu::tscScale) + tscOffset.
  std::uint64_t star, lstar, cstar, sfmask, kernelGsBase;
  std::uint64_t sysenterCs, sysenterEsp, sysenterEip;
  std::uint64_t tscOffset, tscAux, tscAdjust;
  std::uint64_t pat, apicBase, miscEnable, spcCtrl;
  std::uint64_t mtrrDefType, mtrrFixed[11], mtrrPhysBase[16], mtrrPhysMask[16];
  std::uint64_t mcgStatus, pkru;
  /// System management mode (SDM vol. 3, chapter 32): whether the CPU is in it, whether NMIs were blocked before, and
  /// where its save area is.
  std::uint8_t smm, smmNmiBlocked;
  std::uint32_t smbase;
  // KVM paravirtual MSRs, as the guest wrote them (Linux Documentation/virt/kvm/x86/msr.rst).
  std::uint64_t pvWallClock, pvSystemTime, pvSteal, pvEoi, pvPollControl, pvAsyncPf;

  /// Vector and x87 state in the host's XSAVE standard format (SDM vol. 1, 13.4); valid while parked.
  alignas(64) std::byte xsave[4096];
};

}  // namespace lodge::x86
