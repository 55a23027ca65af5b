// SPDX-License-Identifier: Apache-2.0
// Guest bytes to exact host bytes, for each rewrite rule: golden_translations.txt shows them, so that a change of what
// the translator writes is seen in review. LODGE_UPDATE_GOLDEN=1 writes the file anew.
#include <Zydis/Zydis.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "engine/translate/liveness.h"
#include "engine/translate/rewriter.h"

namespace lodge::translate {
namespace {

constexpr const char* kFile = LODGE_GOLDEN_FILE;
constexpr std::uint64_t kUserPage = 0x401000, kKernelPage = 0xffffffff81000000, kKernelPage32 = 0xc1000000;
constexpr unsigned kOffset = 0x100;
constexpr std::uint64_t kHot = 0x10000000, kCold = 0x18000000;
constexpr Thunks kThunks{.missRead = 0x20000000,
                         .missWrite = 0x20000010,
                         .exitLink = 0x20000020,
                         .exitStep = 0x20000030,
                         .exitMisaligned = 0x20000080,
                         .callStep = 0x20000040,
                         .indirectMiss = 0x20000050,
                         .syscall = 0x20000060,
                         .sysret = 0x20000070,
                         .mayCross = {0x20000090, 0x200000a0, 0x200000b0}};

/// One case of the file: its heading, "## NAME | OPTIONS | GUEST BYTES".
struct Case {
  std::string heading, options;
  std::vector<std::uint8_t> guest;
  bool has(const char* word) const { return options.find(word) != std::string::npos; }
};

std::string hexOf(const std::uint8_t* bytes, unsigned count) {
  std::string text;
  char one[8];
  for (unsigned i = 0; i < count; ++i) {
    std::snprintf(one, sizeof one, "%s%02x", i == 0 ? "" : " ", bytes[i]);
    text += one;
  }
  return text;
}

/// Addresses by name, where they have one.
std::string withNames(std::string text) {
  const std::pair<std::uint64_t, const char*> names[] = {
      {kThunks.missRead, "missRead"},
      {kThunks.missWrite, "missWrite"},
      {kThunks.exitLink, "exitLink"},
      {kThunks.exitStep, "exitStep"},
      {kThunks.exitMisaligned, "exitMisaligned"},
      {kThunks.callStep, "callStep"},
      {kThunks.syscall, "syscall"},
      {kThunks.sysret, "sysret"},
      {kThunks.indirectMiss, "indirectMiss"},
      {kThunks.mayCross[0], "mayCross2"},
      {kThunks.mayCross[1], "mayCross4"},
      {kThunks.mayCross[2], "mayCross8"},
  };
  for (const auto& [address, name] : names) {
    char number[24];
    std::snprintf(number, sizeof number, "0x%016llX", static_cast<unsigned long long>(address));
    if (auto at = text.find(number); at != std::string::npos) text.replace(at, 18, name);
  }
  return text;
}

const char* kindName(unsigned kind) {
  constexpr const char* kNames[] = {"instruction", "instruction", "flags saved",      "committing",
                                    "dynamic",     "moved RDI",   "moved RDI and RSI"};
  return kNames[kind];
}

/// One instruction a line: bytes and meaning, with the records' states between them.
std::string listing(const Assembler& a, const Record* records, unsigned count) {
  std::string text;
  char line[160];
  unsigned record = 0;
  for (std::uint32_t at = 0; at < a.size();) {
    for (; record < count && records[record].offset <= at; ++record) {
      std::snprintf(line, sizeof line, "  .%s %03x%s\n", kindName(records[record].kind), records[record].value,
                    records[record].isEntry() ? " (entry)" : "");
      text += line;
    }
    ZydisDisassembledInstruction i;
    if (!ZYAN_SUCCESS(
            ZydisDisassembleIntel(ZYDIS_MACHINE_MODE_LONG_64, a.start() + at, a.bytes() + at, a.size() - at, &i)))
      return text + "  ?\n";
    std::string bytes = hexOf(a.bytes() + at, i.info.length);
    std::snprintf(line, sizeof line, "  %04x  %-36s %s\n", at, bytes.c_str(), withNames(i.text).c_str());
    text += line;
    at += i.info.length;
  }
  return text;
}

ModeKey keyOf(const Case& c) {
  std::uint32_t bits = ModeKey::translatable | ModeKey::code64 | ModeKey::x87 | ModeKey::sse | ModeKey::avx |
                       ModeKey::avx512 | ModeKey::fwait | ModeKey::fsgsbase | ModeKey::syscall | ModeKey::timeStamp;
  if (c.has("user")) bits |= ModeKey::user;
  if (c.has("smap")) bits |= ModeKey::smap | ModeKey::kernelTable;
  if (c.has("code32")) {
    bits &= ~(ModeKey::code64 | ModeKey::syscall);
    if (!c.has("user")) bits |= ModeKey::kernelTable;
  }
  return {bits};
}

std::uint64_t pageOf(const Case& c) {
  if (c.has("user")) return kUserPage;
  return c.has("code32") ? kKernelPage32 : kKernelPage;
}

std::string translated(const Case& c) {
  std::vector<std::uint8_t> page(4096, 0x90);
  std::copy(c.guest.begin(), c.guest.end(), page.begin() + kOffset);
  std::copy_n("\x0f\x0b", 2, page.begin() + kOffset + static_cast<long>(c.guest.size()));  // UD2: all flags are live
  auto block = std::make_unique<Block>();
  auto groups = std::make_unique<GroupPlan>();
  auto code = std::make_unique<RewrittenCode>();
  block->isShared = c.has("shared");
  block->goesOnAfterCalls = c.has("returns");
  decodeBlock(*block, page.data(), block->isShared ? 0 : pageOf(c), kOffset, keyOf(c), ~std::uint64_t{0});
  unsigned wanted = 0;
  while (wanted < block->count && block->instructions[wanted].offset < kOffset + c.guest.size()) ++wanted;
  solveLiveness(*block, page.data(), ~std::uint64_t{0}, c.has("strict"));
  auto loops = std::make_unique<LoopPlan>();
  if (!c.has("no-loops")) planLoops(*block, *loops);
  if (!c.has("no-groups")) planGroups(*block, *groups);
  std::vector<std::uint8_t> hotBytes(65536), coldBytes(65536);
  Assembler hot(hotBytes.data(), kHot, 65536), cold(coldBytes.data(), kCold, 65536);
  HostFeatures host{.bmi1 = !c.has("no-bmi"),
                    .bmi2 = !c.has("no-bmi"),
                    .lahf64 = true,
                    .fsgsbase = true,
                    .sharing = c.has("shared"),
                    .returns = c.has("returns")};
  Rewriter rewriter(*block, *groups, *loops, hot, cold, kThunks, host, *code);
  if (rewriter.run() < wanted) return "  (does not fit)\n";
  // Without the UD2's call to the interpreter.
  unsigned end = kOffset + static_cast<unsigned>(c.guest.size());
  std::uint32_t hotEnd = hot.size();
  for (unsigned i = 0; i < code->hotCount; ++i) {
    const Record& r = code->hot[i];
    if (r.isEntry() && r.value == end && code->loopCount == 0) {
      hotEnd = r.offset;
      code->hotCount = i;
      break;
    }
  }
  Assembler shown(hotBytes.data(), kHot, 65536);
  shown.bytes(std::vector<std::uint8_t>(hotBytes.begin(), hotBytes.begin() + hotEnd).data(), hotEnd);
  std::string text = listing(shown, code->hot.data(), code->hotCount);
  if (cold.size() != 0) text += " cold:\n" + listing(cold, code->cold.data(), code->coldCount);
  return text;
}

Case parse(const std::string& heading) {
  Case c;
  c.heading = heading;
  std::size_t first = heading.find('|');
  std::size_t second = heading.find('|', first + 1);
  if (first == std::string::npos || second == std::string::npos) return c;
  c.options = heading.substr(first + 1, second - first - 1);
  std::istringstream bytes(heading.substr(second + 1));
  unsigned b;
  while (bytes >> std::hex >> b) c.guest.push_back(static_cast<std::uint8_t>(b));
  return c;
}

struct Golden {
  std::string preface;
  std::vector<std::pair<Case, std::string>> cases;  ///< with the translation that the file has
};

Golden readGolden() {
  Golden golden;
  std::ifstream in(kFile);
  std::string line;
  while (std::getline(in, line)) {
    if (line.starts_with("## ")) {
      golden.cases.emplace_back(parse(line), "");
    } else if (golden.cases.empty()) {
      golden.preface += line + "\n";
    } else if (!line.empty()) {
      golden.cases.back().second += line + "\n";
    }
  }
  return golden;
}

TEST(GoldenTest, TranslationsAreAsWritten) {
  Golden golden = readGolden();
  ASSERT_FALSE(golden.cases.empty()) << kFile;
  if (std::getenv("LODGE_UPDATE_GOLDEN")) {
    std::ofstream out(kFile);
    out << golden.preface;
    for (std::size_t n = 0; n < golden.cases.size(); ++n)
      out << (n == 0 ? "" : "\n") << golden.cases[n].first.heading << "\n" << translated(golden.cases[n].first);
    return;
  }
  for (const auto& [c, expected] : golden.cases) {
    ASSERT_FALSE(c.guest.empty()) << c.heading;
    EXPECT_EQ(translated(c), expected) << c.heading << "\nIf this is meant: LODGE_UPDATE_GOLDEN=1 translate_test";
  }
}

}  // namespace
}  // namespace lodge::translate
