// SPDX-License-Identifier: Apache-2.0
// differential --engine interpret|translate [--count N] [--seed S] [--keep-going N] [--list]
// Runs random snippets on the host CPU and on an engine and compares everything. Exit status 1 on a difference.
#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include "tests/differential/generator.h"
#include "tests/differential/guest.h"
#include "tests/differential/oracle.h"

using namespace lodge;
using namespace lodge::differential;

namespace {

struct Options {
  std::string engine = "interpret";
  std::uint64_t count = 10000, seed = 1;
  unsigned keepGoing = 10;
  bool list = false;
};

constexpr const char* kNames[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                    "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

// x87 FOP, FIP and FDP (FXSAVE bytes 6..23) are not compared: AMD leaves them unless an exception is pending, and an
// engine that runs the instruction elsewhere in memory would store that place.
bool sameVector(const std::byte* a, const std::byte* b, std::string& where) {
  for (std::size_t i = 0; i < kVectorBytes; ++i) {
    if (a[i] == b[i] || (i >= 6 && i < 24) || (i >= 28 && i < 32)) continue;
    if (i >= 416 && i < 576) continue;  // reserved, and the header: which components are in their initial state
    if (i >= 32 && i < 160 && i % 16 >= 10) continue;
    where += fmt::format(" vector[{}]: host {:02x} guest {:02x}", i, static_cast<unsigned>(a[i]),
                         static_cast<unsigned>(b[i]));
    return false;
  }
  return true;
}

/// The instruction that the host stopped at, if it lies in the snippet.
bool stoppedAt(const Snippet& s, const Outcome& host, x86::Instruction& i) {
  std::uint64_t offset = host.after.rip - s.before.rip;
  return offset < s.length && x86::decode(s.code + offset, 15, x86::CodeSize::bits64, i) == x86::DecodeStatus::ok;
}

/// Outcomes of the host that are its own.
std::string_view reasonToSkip(const Snippet& snippet, const Outcome& host) {
  if (host.vector == 1) return "jumped into an INT1, which the host's hypervisor handles";
  bool lastPage = host.vector == 14 && host.faultAddress >> 12 == 0x7ffff'ffff;
  if (lastPage) return "an access across the end of the canonical half: #GP or, on AMD, #PF";
  x86::Instruction i{};
  if (!stoppedAt(snippet, host, i)) return "";
  if (i.info->op == x86::Op::maskmov) return "MASKMOV: whether masked-off bytes fault is the processor's choice";
  bool area = x86::memoryOperand(i).bytes > 64;
  if (area && host.vector == 14)
    return "FXSAVE, FNSAVE and their kin: which of several bad pages faults is the processor's choice";
  return "";
}

/// FXSAVE and FXRSTOR at a misaligned address with EFLAGS.AC: #GP or #AC (SDM vol. 2, FXSAVE).
bool eitherAlignmentFault(const Outcome& host, const Outcome& guest) {
  auto fits = [](const Outcome& o) { return o.vector == 13 || o.vector == 17; };
  return fits(host) && fits(guest) && host.vector != guest.vector && host.after.rip == guest.after.rip;
}

std::string difference(const Outcome& host, const Outcome& guest) {
  std::string text;
  if (host.vector != guest.vector) {
    text += fmt::format(" exception: host {} (address {:x}) guest {} ({:x})", host.vector, host.faultAddress,
                        guest.vector, guest.faultAddress);
  }
  if (host.vector == guest.vector && host.vector == 14) {
    // For addresses beyond the user half's last page the host's kernel reports P = 1, so that its layout does not show.
    std::uint32_t hidden = host.faultAddress >= 0x7fff'ffff'f000 ? 1 : 0;
    if ((host.errorCode | hidden) != (guest.errorCode | hidden))
      text += fmt::format(" error code: host {:x} guest {:x}", host.errorCode, guest.errorCode);
    // Which byte of an access of several parts is named is the processor's choice; the page is not.
    if ((host.faultAddress ^ guest.faultAddress) >> 12 != 0)
      text += fmt::format(" cr2: host {:x} guest {:x}", host.faultAddress, guest.faultAddress);
  }
  if (host.vector == guest.vector && host.vector == 13 && host.errorCode != guest.errorCode) {
    text += fmt::format(" error code: host {:x} guest {:x}", host.errorCode, guest.errorCode);
  }
  for (int i = 0; i < 16; ++i) {
    if (host.after.gpr[i] != guest.after.gpr[i])
      text += fmt::format(" {}: host {:x} guest {:x}", kNames[i], host.after.gpr[i], guest.after.gpr[i]);
  }
  if (host.after.rip != guest.after.rip)
    text += fmt::format(" rip: host {:x} guest {:x}", host.after.rip, guest.after.rip);
  if (host.after.rflags != guest.after.rflags)
    text += fmt::format(" rflags: host {:x} guest {:x}", host.after.rflags, guest.after.rflags);
  if (host.dataHash != guest.dataHash) text += " memory differs";
  sameVector(host.after.vector.data(), guest.after.vector.data(), text);
  return text;
}

std::string describe(const Snippet& s) {
  std::string text;
  for (unsigned at = 0; at < s.length;) {
    x86::Instruction i{};
    if (x86::decode(s.code + at, s.length - at, x86::CodeSize::bits64, i) != x86::DecodeStatus::ok) {
      text += " (invalid)";
      for (; at < s.length; ++at) text += fmt::format(" {:02x}", s.code[at]);
      break;
    }
    text += fmt::format(" {}[", i.info->mnemonic);
    for (unsigned k = 0; k < i.length; ++k) text += fmt::format("{}{:02x}", k ? " " : "", s.code[at + k]);
    text += "]";
    at += i.length;
  }
  return text;
}

bool parse(int argc, char** argv, Options& o) {
  for (int i = 1; i < argc; ++i) {
    std::string_view a = argv[i];
    if (a == "--list") {
      o.list = true;
      continue;
    }
    if (i + 1 == argc) return false;
    const char* v = argv[++i];
    if (a == "--engine")
      o.engine = v;
    else if (a == "--count")
      o.count = std::strtoull(v, nullptr, 0);
    else if (a == "--seed")
      o.seed = std::strtoull(v, nullptr, 0);
    else if (a == "--keep-going")
      o.keepGoing = static_cast<unsigned>(std::strtoul(v, nullptr, 0));
    else
      return false;
  }
  return true;
}

int fail(const Error& error) {
  fmt::print(stderr, "differential: {}\n", error.message());
  return 3;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (!parse(argc, argv, options)) {
    fmt::print(stderr,
               "usage: differential --engine interpret|translate [--count N] [--seed S] [--keep-going N] [--list]\n");
    return 2;
  }
  auto oracle = Oracle::create();
  if (!oracle) return fail(oracle.error());
  auto guest = Guest::create(options.engine);
  if (!guest) return fail(guest.error());
  Generator generator(options.seed);
  std::vector<Snippet> snippets(kBatch);
  std::vector<Outcome> outcomes(kBatch);
  std::uint64_t done = 0, skipped = 0, differences = 0;
  while (done < options.count && differences < options.keepGoing) {
    for (unsigned i = 0; i < kBatch; ++i) snippets[i] = generator.next(i);
    if (Status ran = (*oracle)->run(snippets, outcomes); !ran) return fail(ran.error());
    (*guest)->loadCode(snippets);
    for (unsigned i = 0; i < kBatch && differences < options.keepGoing; ++i) {
      if (outcomes[i].skipped) {
        ++skipped;
        continue;
      }
      if (std::string_view reason = reasonToSkip(snippets[i], outcomes[i]); !reason.empty()) {
        ++skipped;
        continue;
      }
      Outcome ours = (*guest)->run(snippets[i]);
      x86::Instruction last{};
      // Where MASKMOV faults, and from which alignment on FRSTOR raises #AC, is the processor's choice.
      bool stopped = stoppedAt(snippets[i], ours, last);
      bool maskmov = stopped && last.info->op == x86::Op::maskmov;
      bool alignment = stopped && ours.vector == 17 && x86::memoryOperand(last).bytes > 64;
      if (maskmov || alignment || eitherAlignmentFault(outcomes[i], ours)) {
        ++skipped;
        continue;
      }
      std::string text = difference(outcomes[i], ours);
      if (!text.empty()) {
        ++differences;
        fmt::print("DIFF seed {} snippet {}:{}\n   {}\n", options.seed, done + i, describe(snippets[i]), text);
      }
    }
    done += kBatch;
  }
  if (options.list) {
    for (const auto& [name, count] : generator.generated()) fmt::print("generated {} {}\n", name, count);
    for (const auto& [name, count] : generator.leftOut()) fmt::print("left out {} ({})\n", name, count);
  }
  fmt::print("differential: engine {}, seed {}, {} snippets, {} skipped, {} differences\n", options.engine,
             options.seed, done, skipped, differences);
  return differences == 0 ? 0 : 1;
}
