// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/lockstep_compare.h"

#include <cstdio>
#include <cstring>

#include "base/bytes.h"
#include "base/units.h"

namespace lodge::translate {

using x86::CpuState;

namespace {
constexpr const char* kNames[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                    "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
constexpr const char* kSegments[6] = {"es", "cs", "ss", "ds", "fs", "gs"};
constexpr std::uint64_t kUsed = 0x60, kPresent = 1;  // page-table entry bits A and D; P

/// Bytes of the XSAVE area's start (legacy region, header, AVX) that are not compared: x87 FOP, FIP and FDP,
/// MXCSR_MASK, what pads the x87 registers, reserved bytes, and which components are in their initial state.
bool isCompared(std::size_t at) {
  if ((at >= 6 && at < 24) || (at >= 28 && at < 32)) return false;
  if (at >= 32 && at < 160) return at % 16 < 10;
  return at < 416 || at >= 576;
}
}  // namespace

std::string hexText(std::uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof text, "%llx", static_cast<unsigned long long>(value));
  return text;
}

const char* nameOf(ExitReason reason) {
  constexpr const char* kReasons[] = {"attention", "redo", "step", "link", "indirect", "dispatch", "fault"};
  return kReasons[static_cast<unsigned>(reason)];
}

StateDifference compareStates(const CpuState& a, const CpuState& b, std::uint64_t stiRip) {
  StateDifference d;
  auto compare = [&d](const char* name, std::uint64_t x, std::uint64_t y) {
    if (x == y) return;
    ++d.count;
    d.text += std::string(" ") + name + " " + hexText(x) + "/" + hexText(y);
  };
  for (unsigned r = 0; r < 16; ++r) compare(kNames[r], a.gpr[r], b.gpr[r]);
  compare("rip", a.rip, b.rip);
  // RF is set by whatever was interrupted last, and dropped by the next instruction.
  compare("rflags", a.rflags & ~x86::flag::rf, b.rflags & ~x86::flag::rf);
  compare("cr0", a.cr0, b.cr0);
  compare("cr2", a.cr2, b.cr2);
  compare("cr3", a.cr3, b.cr3);
  compare("cr4", a.cr4, b.cr4);
  compare("efer", a.efer, b.efer);
  compare("cpl", a.cpl, b.cpl);
  compare("kernelGsBase", a.kernelGsBase, b.kernelGsBase);
  if (b.rip != stiRip) compare("interruptShadow", a.interruptShadow, b.interruptShadow);
  for (unsigned s = 0; s < 6; ++s) {
    compare((std::string(kSegments[s]) + ".base").c_str(), a.segment[s].base, b.segment[s].base);
    compare(kSegments[s], a.segment[s].selector | std::uint64_t{a.segment[s].attributes} << 16,
            b.segment[s].selector | std::uint64_t{b.segment[s].attributes} << 16);
  }
  constexpr std::size_t kVectorBytes = 2688;  // to the end of AVX-512 state where hosts keep it
  if (std::memcmp(a.xsave, b.xsave, kVectorBytes) == 0) return d;
  for (std::size_t i = 0; i < kVectorBytes; ++i) {
    if (a.xsave[i] == b.xsave[i] || !isCompared(i)) continue;
    ++d.count;
    d.text += " xsave[" + std::to_string(i) + "]";
    break;
  }
  return d;
}

std::uint64_t differenceInPage(const std::byte* a, const std::byte* b) {
  for (std::uint64_t at = 0; at < kPageSize; at += 8) {
    auto x = loadLe<std::uint64_t>(a + at), y = loadLe<std::uint64_t>(b + at);
    if (x == y || ((x & y & kPresent) != 0 && ((x ^ y) & ~kUsed) == 0)) continue;
    return at + static_cast<std::uint64_t>(__builtin_ctzll(x ^ y)) / 8;
  }
  return kPageSize;
}

void addUsedBits(std::byte* to, const std::byte* from) {
  for (std::uint64_t at = 0; at < kPageSize; at += 8) {
    auto x = loadLe<std::uint64_t>(to + at), y = loadLe<std::uint64_t>(from + at);
    if (x != y && (x & y & kPresent) != 0 && ((x ^ y) & ~kUsed) == 0) storeLe(to + at, x | (y & kUsed));
  }
}

std::string describeState(const CpuState& state) {
  std::string text = " rip " + hexText(state.rip) + " flags " + hexText(state.rflags);
  for (unsigned r = 0; r < 16; ++r) text += std::string(" ") + kNames[r] + " " + hexText(state.gpr[r]);
  return text;
}

}  // namespace lodge::translate
