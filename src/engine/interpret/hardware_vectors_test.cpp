// SPDX-License-Identifier: Apache-2.0
// Instructions as a real 80286 did them in real mode: one instruction and a HLT each, with registers and memory before
// and after. The vectors lie outside the repository: in the folder that LODGE_SHARED_DATA names, or in shared/data
// beside the repository or its parent.
#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/interpret/test_machine.h"

namespace lodge::interpret {
namespace {

using Json = nlohmann::json;
using namespace x86;

constexpr const char* kFile = "cpu/80286_real_60.jsonl.gz";

std::string vectorsPath() {
  namespace fs = std::filesystem;
  if (const char* folder = std::getenv("LODGE_SHARED_DATA")) return std::string(folder) + "/" + kFile;
  fs::path source = LODGE_SOURCE_FOLDER;
  for (const char* beside : {"../shared/data", "../../shared/data"}) {
    if (fs::path path = (source / beside / kFile).lexically_normal(); fs::exists(path)) return path.string();
  }
  return {};
}

/// Ports of a bus without devices.
struct EmptyBus : TestEnvironment {
  std::uint64_t readPort(std::uint16_t, unsigned size) override { return size == 1 ? 0xff : 0xffff; }
};

/// What counts of one vector. The manual says of everything else that it is undefined, or different on later
/// processors.
struct Rules {
  std::uint16_t flags =
      flag::cf | flag::pf | flag::af | flag::zf | flag::sf | flag::tf | flag::if_ | flag::df | flag::of;
  bool registers = true;  ///< SI, DI and CX
  std::string skip;       ///< why the vector says nothing about a later processor
};

bool isOneOf(const std::string& file, std::initializer_list<const char*> files) {
  for (const char* one : files) {
    if (file == one) return true;
  }
  return false;
}

/// Flags that the SDM calls undefined, by opcode; `count` is what a shift shifts by, `wide` whether it has 16 bits.
std::uint16_t undefinedFlags(const std::string& file, unsigned count, bool wide) {
  std::string opcode = file.substr(0, 2);
  int group = file.size() == 4 ? file[3] - '0' : -1;
  if (isOneOf(opcode, {"C0", "C1", "D0", "D1", "D2", "D3"})) {
    std::uint16_t undefined = 0;
    unsigned bits = wide ? 16 : 8;
    if (group >= 4 && count != 0) undefined |= flag::af;
    if (count > 1) undefined |= flag::of;
    if (group >= 4 && group != 7 && count > bits) undefined |= flag::cf;
    return undefined;
  }
  bool logical = isOneOf(opcode, {"08", "09", "0A", "0B", "0C", "0D", "20", "21", "22", "23", "24",
                                  "25", "30", "31", "32", "33", "34", "35", "84", "85", "A8", "A9"}) ||
                 (opcode[0] == '8' && opcode[1] <= '3' && (group == 1 || group == 4 || group == 6)) ||
                 (isOneOf(opcode, {"F6", "F7"}) && (group == 0 || group == 1));
  if (logical) return flag::af;
  bool multiplies = isOneOf(opcode, {"69", "6B"}) || (isOneOf(opcode, {"F6", "F7"}) && (group == 4 || group == 5));
  if (multiplies) return flag::sf | flag::zf | flag::af | flag::pf;
  if (isOneOf(opcode, {"F6", "F7"}) && group >= 6) return flag::arithmetic;
  if (isOneOf(opcode, {"37", "3F"})) return flag::of | flag::sf | flag::zf | flag::pf;
  if (isOneOf(opcode, {"27", "2F"})) return flag::of;
  if (isOneOf(opcode, {"D4", "D5"})) return flag::of | flag::af | flag::cf;
  return 0;
}

struct Vector286 {
  explicit Vector286(const Json& json) : file(json["file"]), name(json["name"]) {
    std::string hex = json["bytes"];
    for (std::size_t n = 0; n + 1 < hex.size(); n += 2) {
      bytes.push_back(static_cast<std::uint8_t>(std::stoul(hex.substr(n, 2), nullptr, 16)));
    }
    for (const auto& [key, value] : json["initial"]["regs"].items()) before.at(std::stoul(key)) = value;
    after = before;
    for (const auto& [key, value] : json["final"]["regs"].items()) after.at(std::stoul(key)) = value;
    for (const Json& cell : json["initial"]["ram"]) ramBefore.emplace_back(cell[0], cell[1]);
    for (const Json& cell : json["final"]["ram"]) ramAfter.emplace_back(cell[0], cell[1]);
    if (json.contains("exc"))
      exception = static_cast<int>(std::stoul(std::string(json["exc"]).substr(0, 2), nullptr, 16));
  }

  unsigned prefixes() const {
    unsigned n = 0;
    for (std::uint8_t byte : bytes) {
      bool prefix =
          byte == 0x26 || byte == 0x2e || byte == 0x36 || byte == 0x3e || byte == 0xf0 || byte == 0xf2 || byte == 0xf3;
      if (!prefix) break;
      ++n;
    }
    return n;
  }
  /// Whether the operand in memory is on the stack, or addressed by BP without another segment.
  bool usesStack(std::uint8_t opcode, std::uint8_t modrm) const {
    if ((opcode >= 0x58 && opcode <= 0x61) ||
        isOneOf(file, {"07", "17", "1F", "8F", "9D", "C2", "C3", "C9", "CA", "CB", "CF"})) {
      return true;
    }
    for (unsigned n = 0; n < prefixes(); ++n) {
      if (bytes[n] == 0x36) return true;
      if (bytes[n] == 0x26 || bytes[n] == 0x2e || bytes[n] == 0x3e) return false;
    }
    unsigned mode = modrm >> 6, rm = modrm & 7;
    return mode != 3 && (rm == 2 || rm == 3 || (rm == 6 && mode != 0));
  }
  Rules rules() const {
    Rules rules;
    unsigned start = prefixes();
    std::uint8_t opcode = bytes.at(start);
    std::uint8_t modrm = start + 1 < bytes.size() ? bytes[start + 1] : 0;
    for (unsigned n = 0; n < start; ++n) {
      if (bytes[n] == 0xf0) rules.skip = "LOCK before any instruction: #UD from the 386 on";
    }
    if (opcode >= 0xd8 && opcode <= 0xdf) rules.skip = "no coprocessor was there";
    if (bytes.size() > 11) rules.skip = "longer than the 10 bytes of a 286";
    if (opcode == 0x8f && (modrm & 0x38) != 0) rules.skip = "POP with other bits in ModRM: later XOP or #UD";
    if ((opcode == 0xc6 || opcode == 0xc7) && (modrm & 0x38) != 0) rules.skip = "MOV with other bits in ModRM: #UD";
    if ((opcode == 0x8c || opcode == 0x8e) && (modrm & 0x38) >= 0x20) rules.skip = "segment registers of the 386";
    if (exception == 13 && usesStack(opcode, modrm)) rules.skip = "past the stack segment's end: #SS from the 386 on";
    bool string = (opcode >= 0x6c && opcode <= 0x6f) || (opcode >= 0xa4 && opcode <= 0xaf && (opcode & 0xfe) != 0xa8);
    // A 286 leaves SI, DI and CX changed by an iteration that faults.
    rules.registers = !(exception >= 0 && string);
    unsigned count = opcode >= 0xd2 ? before[2] & 31u : opcode >= 0xd0 ? 1 : bytes.at(bytes.size() - 2) & 31u;
    rules.flags &= static_cast<std::uint16_t>(~undefinedFlags(file, count, (opcode & 1) != 0));
    return rules;
  }

  std::string file, name;
  std::vector<std::uint8_t> bytes;
  std::array<std::uint16_t, 14> before{}, after{};  ///< AX BX CX DX CS SS DS ES SP BP SI DI IP FLAGS
  std::vector<std::pair<std::uint32_t, std::uint8_t>> ramBefore, ramAfter;
  int exception = -1;
};

constexpr Gpr kRegisters[] = {rax, rbx, rcx, rdx, rsp, rbp, rsi, rdi};
constexpr unsigned kPlaces[] = {0, 1, 2, 3, 8, 9, 10, 11};
constexpr std::pair<Segment, unsigned> kSegments[] = {{cs, 4}, {ss, 5}, {ds, 6}, {es, 7}};

class HardwareVectors : public testing::Test {
 protected:
  HardwareVectors() { machine_.cpu->environment = &bus_; }

  std::uint8_t& ram(std::uint64_t at) {
    return reinterpret_cast<std::uint8_t*>(machine_.memory->deviceView())[at & 0x1fffff];
  }

  /// What differs, or nothing.
  std::string run(const Vector286& v) {
    machine_.real();
    CpuState& s = machine_.cpu->state;
    for (unsigned n = 0; n < std::size(kPlaces); ++n) s.gpr[kRegisters[n]] = v.before[kPlaces[n]];
    for (auto [segment, place] : kSegments) {
      s.segment[segment].selector = v.before[place];
      s.segment[segment].base = std::uint64_t{v.before[place]} << 4;
      s.segment[segment].limit = 0xffff;
    }
    s.rip = v.before[12];
    s.idtr = {0, 0x3ff, 0};
    s.rflags = (v.before[13] & 0xfff) | flag::reserved1;
    s.activity = Activity::running;
    flushTlbEverything(*machine_.cpu);
    for (auto [at, value] : v.ramBefore) ram(at) = value;
    for (unsigned n = 0; n < 200000 && s.activity == Activity::running; ++n) interpret::step(*machine_.cpu);
    std::string differs = compare(v);
    for (auto [at, value] : v.ramBefore) ram(at) = 0;
    for (auto [at, value] : v.ramAfter) ram(at) = 0;
    return differs;
  }

  std::string compare(const Vector286& v) {
    const CpuState& s = machine_.cpu->state;
    Rules rules = v.rules();
    std::string out;
    if (s.activity != Activity::halted) out += fmt::format(" not halted at {:x}", s.rip);
    auto check = [&out](const char* what, unsigned number, std::uint64_t is, std::uint64_t expected) {
      if (is != expected) out += fmt::format(" {}{}={:x} not {:x}", what, number, is, expected);
    };
    for (unsigned n = 0; n < std::size(kPlaces); ++n) {
      if (!rules.registers && (kRegisters[n] == rcx || kRegisters[n] == rsi || kRegisters[n] == rdi)) continue;
      check("r", n, s.gpr[kRegisters[n]] & 0xffff, v.after[kPlaces[n]]);
    }
    for (auto [segment, place] : kSegments) check("s", segment, s.segment[segment].selector, v.after[place]);
    check("ip", 0, s.rip & 0xffff, v.after[12]);
    check("flags", 0, s.rflags & rules.flags, v.after[13] & rules.flags);
    for (auto [at, value] : v.ramAfter) {
      std::uint8_t mask = 0xff;
      // Flags on the stack: bits 12 to 15 are kept from the 386 on, and what is undefined is so there, too.
      bool pushed = v.file == "9C" || v.file == "CC" || v.file == "CD" || v.file == "CE";
      // INT and exceptions have pushed CS and IP after them.
      unsigned flagsOffset = pushed && v.file == "9C" ? v.after[8] : v.after[8] + 4u;
      std::uint64_t flagsAt = (std::uint64_t{v.before[5]} << 4) + (flagsOffset & 0xffff);
      if ((pushed || v.exception >= 0) && at == flagsAt) mask = static_cast<std::uint8_t>(rules.flags);
      if ((pushed || v.exception >= 0) && at == flagsAt + 1) mask = static_cast<std::uint8_t>(rules.flags >> 8 & 0x0f);
      if ((ram(at) & mask) != (value & mask)) out += fmt::format(" [{:x}]={:x} not {:x}", at, ram(at), value);
    }
    return out;
  }

  EmptyBus bus_;
  TestMachine machine_;
};

TEST_F(HardwareVectors, RealModeIsThatOfAn80286) {
  std::string path = vectorsPath();
  if (path.empty() || !std::filesystem::exists(path)) GTEST_SKIP() << "no vectors: shared/data/" << kFile;
  std::FILE* pipe = ::popen(("gzip -dc '" + path + "'").c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  std::map<std::string, unsigned> skipped;
  std::map<std::string, std::pair<unsigned, std::string>> failed;
  unsigned good = 0;
  char* line = nullptr;
  std::size_t capacity = 0;
  while (::getline(&line, &capacity, pipe) > 0) {
    Json json = Json::parse(line, nullptr, false);
    if (!json.is_object()) continue;
    Vector286 vector(json);
    if (std::string skip = vector.rules().skip; !skip.empty()) {
      ++skipped[skip];
      continue;
    }
    std::string differs = run(vector);
    if (differs.empty()) {
      ++good;
    } else {
      auto& [count, example] = failed[vector.file];
      if (count++ == 0)
        example = fmt::format("{} ({}) exc {}:{}", vector.name, std::string(json["bytes"]), vector.exception, differs);
    }
  }
  std::free(line);
  EXPECT_EQ(::pclose(pipe), 0);
  for (const auto& [file, what] : failed) ADD_FAILURE() << file << ": " << what.first << " differ, as " << what.second;
  for (const auto& [reason, count] : skipped) std::printf("left out: %u (%s)\n", count, reason.c_str());
  std::printf("%u vectors agree\n", good);
  EXPECT_GT(good, 15000u);
}

}  // namespace
}  // namespace lodge::interpret
