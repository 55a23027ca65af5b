// SPDX-License-Identifier: Apache-2.0
#include "tests/differential/single_step.h"

#include <fmt/format.h>
#include <ucontext.h>

#include <algorithm>
#include <cstring>

#include "engine/interpret/interpreter.h"
#include "engine/translate/lockstep_compare.h"
#include "engine/translate/vcpu_context.h"
#include "tests/differential/compare.h"
#include "x86/instruction.h"

namespace lodge::differential {

using translate::VcpuContext;

namespace {
constexpr unsigned kMostCommitting = 40;    ///< host instructions in a row without a state
constexpr std::uint64_t kMostSteps = 1500;  ///< of a snippet; what loops on is left
constexpr unsigned kLongCode = 0x2000;      ///< the L bit of a segment's attributes
constexpr std::uint64_t kMostWithoutCode = 16;
constexpr std::uint64_t kMostInterpreted = 2000;  ///< guest instructions between two looks, where the interpreter ran
}  // namespace

SingleStepper::SingleStepper(Guest& guest, Guest& reference) : guest_(guest), reference_(reference) {
  auto& context = *static_cast<VcpuContext*>(guest.cpu().engineData);
  context.hostStepArgument = this;
  context.onHostStep = onStep;
}

SingleStepper::~SingleStepper() {
  static_cast<VcpuContext*>(guest_.cpu().engineData)->onHostStep = nullptr;
}

void SingleStepper::onStep(VcpuContext& context, const x86::CpuState* state, const void* frame, void* self) {
  static_cast<SingleStepper*>(self)->step(context, state, frame);
}

/// Registers, flags and vector state, then memory; "" if all are the same.
std::string SingleStepper::compare(VcpuContext& context) {
  x86::Cpu& reference = reference_.cpu();
  reference.parkFpu();
  // Once 32-bit code has run, the upper halves are undefined.
  auto is32 = [](const x86::CpuState& s) { return (s.segment[x86::cs].attributes & kLongCode) == 0; };
  had32_ = had32_ || is32(reference.state) || is32(state_);
  for (unsigned r = 0; had32_ && r < 8; ++r) {
    reference.state.gpr[r] &= 0xffff'ffff;
    state_.gpr[r] &= 0xffff'ffff;
  }
  auto difference = translate::compareStates(reference.state, state_, context.frame->stiRip);
  if (difference.count != 0) return difference.text;
  return guest_.hasSameMemory(reference_) ? "" : " memory";
}

/// Between two iterations of REP MOVS or STOS, as after an interrupt: the reference goes as far as the guest is.
void SingleStepper::repeatAsOften() {
  x86::CpuState& r = reference_.cpu().state;
  std::uint64_t done = r.gpr[x86::rcx] - state_.gpr[x86::rcx];
  if (r.rip != state_.rip || done == 0 || done > kPageSize) return;
  std::byte bytes[15] = {};
  if (!reference_.readCode(r.rip, bytes)) return;
  x86::Instruction i{};
  bool is64 = (r.segment[x86::cs].attributes & kLongCode) != 0;
  auto size = is64 ? x86::CodeSize::bits64 : x86::CodeSize::bits32;
  if (x86::decode(reinterpret_cast<const std::uint8_t*>(bytes), sizeof bytes, size, i) != x86::DecodeStatus::ok) return;
  if (i.info->op != x86::Op::movs && i.info->op != x86::Op::stos) return;
  std::uint64_t start = r.rip;
  r.gpr[x86::rcx] = done;
  for (std::uint64_t n = 0; n < done && r.rip == start; ++n) interpret::step(reference_.cpu());
  r.gpr[x86::rcx] = state_.gpr[x86::rcx];
  r.rip = start;
}

void SingleStepper::step(VcpuContext& context, const x86::CpuState* state, const void* frame) {
  if (!wrong_.empty()) return;
  ++hostInstructions_;
  if (++steps_ == kMostSteps) guest_.stop();
  if (steps_ >= kMostSteps) return;
  const auto* ucontext = static_cast<const ucontext_t*>(frame);
  auto pc = static_cast<std::uint64_t>(ucontext->uc_mcontext.gregs[REG_RIP]);
  if (!state) {
    if (++committing_ > kMostCommitting) wrong_ = fmt::format("{:x}: no state for {} instructions", pc, committing_);
    return;
  }
  committing_ = 0;
  ++comparisons_;
  state_ = *state;
  std::memcpy(state_.xsave, ucontext->uc_mcontext.fpregs,
              frameBytes(reinterpret_cast<const std::byte*>(ucontext->uc_mcontext.fpregs)));
  // The state before the instruction, or after it; further where host code has nothing for some instructions (NOP,
  // jumps) and where the interpreter did something in between. RIP is compared, so that nothing else can pass.
  std::uint64_t interpreted = guest_.cpu().instructionsInterpreted;
  std::uint64_t allowed = kMostWithoutCode + std::min(interpreted - interpreted_, kMostInterpreted);
  interpreted_ = interpreted;
  std::string first;
  for (std::uint64_t n = 0;; ++n) {
    repeatAsOften();
    std::string difference = compare(context);
    if (difference.empty()) return;
    if (n == 0) first = difference;
    if (n == allowed) {
      wrong_ = fmt::format("host {:x}, guest {:x}: interpreter/translator, before:{}; after:{}\n{}", pc, state_.rip,
                           first, difference, context.store->describe(state_.rip));
      guest_.stop();
      return;
    }
    interpret::step(reference_.cpu());
    reference_.cpu().exception.valid = false;
  }
}

std::string SingleStepper::run(const Snippet& snippet) {
  wrong_.clear();
  if (showsX87Pointers(snippet) || readsClock(snippet)) return wrong_;
  committing_ = 0;
  steps_ = 0;
  had32_ = false;
  reference_.prepare(snippet);
  interpreted_ = guest_.cpu().instructionsInterpreted;
  guest_.run(snippet);
  reference_.cpu().parkFpu();
  return wrong_;
}

}  // namespace lodge::differential
