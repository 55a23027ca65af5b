// SPDX-License-Identifier: Apache-2.0
#include "tests/differential/path_tracer.h"

#include <fmt/format.h>

#include "engine/interpret/interpreter.h"
#include "tests/differential/generator.h"

namespace lodge::differential {

using namespace x86;

Result<std::unique_ptr<PathTracer>> PathTracer::create(GuestKind kind) {
  auto guest = Guest::create("interpret", "", kind);
  if (!guest) return std::move(guest).error();
  auto tracer = std::make_unique<PathTracer>();
  tracer->guest_ = std::move(*guest);
  return tracer;
}

/// The instruction at CS:RIP; false if there is none.
bool PathTracer::decodeNext(Instruction& instruction, std::uint64_t& linear) {
  const CpuState& state = guest_->cpu().state;
  const SegmentRegister& code = state.segment[cs];
  bool wide = guest_->cpu().mode64();
  linear = wide ? state.rip : (code.base + state.rip) & 0xffff'ffff;
  std::byte bytes[kMaxInstructionLength] = {};
  auto inPage = std::min<std::uint64_t>(sizeof bytes, kPageSize - (linear & kPageMask));
  if (!guest_->readCode(linear, std::span(bytes).first(inPage))) return false;
  if (inPage < sizeof bytes) (void)guest_->readCode(linear + inPage, std::span(bytes).subspan(inPage));
  CodeSize size = wide ? CodeSize::bits64 : code.big() ? CodeSize::bits32 : CodeSize::bits16;
  return decode(reinterpret_cast<const std::uint8_t*>(bytes), sizeof bytes, size, instruction) == DecodeStatus::ok;
}

namespace {
/// What compare.cpp reckons with where it is one of the snippet's own.
bool leavesFlagsOpen(const Instruction& i) {
  Op op = i.info->op;
  return op == Op::daa || op == Op::das || op == Op::aaa || op == Op::aas;
}
/// Whether one of the snippet's instructions begins there.
bool isOwn(const Snippet& s, std::uint64_t offset) {
  Instruction i{};
  unsigned at = 0;
  while (at < offset && at < s.length && decode(s.code + at, 15, codeSize(s), i) == DecodeStatus::ok) at += i.length;
  return at == offset && at < s.length;
}
}  // namespace

std::string_view PathTracer::follow(std::span<const Snippet> batch, const Snippet& snippet, bool definedFlags) {
  constexpr unsigned kMost = 100'000;
  constexpr std::size_t kShown = 4000;
  std::string_view reason;
  path_.clear();
  adjusts_ = false;
  guest_->loadCode(batch);
  guest_->prepare(snippet);
  Cpu& cpu = guest_->cpu();
  for (unsigned n = 0; n < kMost && cpu.state.cpl == 3; ++n) {
    Instruction i{};
    std::uint64_t linear = 0;
    if (!decodeNext(i, linear)) break;
    path_ += fmt::format(" {:x}:{}", linear, i.info->mnemonic);
    if (path_.size() > 2 * kShown) path_.erase(0, kShown);
    std::string_view here = reasonToLeaveOut(i);
    if (here.empty() && definedFlags && (flagEffects(i).undefined & ~flag::af) != 0) here = "flags that are undefined";
    // A program's own POPF and system instructions are chosen with care.
    std::uint64_t offset = cpu.state.rip - snippet.before.rip;
    if (!here.empty() && offset >= snippet.length && reason.empty()) reason = here;
    if (leavesFlagsOpen(i) && !isOwn(snippet, offset)) adjusts_ = true;
    if (!interpret::step(cpu)) break;
  }
  cpu.parkFpu();
  return reason;
}

}  // namespace lodge::differential
