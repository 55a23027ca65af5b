// SPDX-License-Identifier: Apache-2.0
#include "tests/differential/guest.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/trace.h"
#include "tests/differential/descriptors.h"
#include "tests/differential/guest_layout.h"
#include "tests/halting_guest.h"
#include "x86/virtual_memory.h"

namespace lodge::differential {

using namespace x86;
using namespace halting_guest;

class Guest::Environment : public QuietEnvironment {
 public:
  std::uint64_t readMmio(Gpa gpa, unsigned size) override {
    std::uint64_t value = mix(hash + accesses + raw(gpa));
    note("read", gpa, size, value);
    return value;
  }
  void writeMmio(Gpa gpa, unsigned size, std::uint64_t value) override { note("write", gpa, size, value); }
  void forget() {
    accesses = hash = 0;
    text.clear();
  }

  std::uint64_t accesses = 0, hash = 0;
  std::string text;  ///< of the first ones

 private:
  static std::uint64_t mix(std::uint64_t z) {
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    return z ^ z >> 27;
  }
  void note(const char* what, Gpa gpa, unsigned size, std::uint64_t value) {
    constexpr std::uint64_t kShown = 12;
    if (accesses++ < kShown) text += fmt::format("     {} {:x} {} {:x}\n", what, raw(gpa), size, value);
    hash = mix(hash * 31 + raw(gpa) * 64 + size * 2 + (what[0] == 'w' ? 1 : 0)) + value;
  }
};

Guest::~Guest() = default;

Result<std::unique_ptr<Guest>> Guest::create(std::string_view engine, std::string trace, GuestKind kind) {
  auto guest = std::unique_ptr<Guest>(new Guest());
  guest->kind_ = kind;
  if (Status known = withholdHostFeatures(trace); !known) return std::move(known).error();
  auto memory = GuestMemory::create(16_MiB);
  if (!memory) return std::move(memory).error();
  guest->memory_ = std::move(*memory);
  auto model = makeCpuModel("host", 1);
  if (!model) return std::move(model).error();
  guest->model_ = std::move(*model);
  guest->environment_ = std::make_unique<Environment>();
  EngineSetup setup{*guest->memory_, *guest->model_, 1, 64_MiB, std::move(trace)};
  auto made = makeEngine(engine, setup);
  if (!made) return std::move(made).error();
  guest->engine_ = std::move(*made);
  guest->buildTables();
  auto vcpu = guest->engine_->createVcpu(0, *guest->environment_);
  if (!vcpu) return std::move(vcpu).error();
  guest->vcpu_ = std::move(*vcpu);
  guest->initial_ = guest->vcpu_->cpu().state;
  guest->initialState(guest->initial_);
  if (kind.kernel) guest->kernelState(guest->initial_);
  return guest;
}

void Guest::loadCode(std::span<const Snippet> snippets) {
  std::vector<std::byte> code(kCodeBytes, std::byte{0xcc});
  for (std::size_t i = 0; i < snippets.size(); ++i)
    if (!snippets[i].inPatchArea)
      std::memcpy(code.data() + snippets[i].slot * kSlotBytes, snippets[i].code, kSlotBytes);
  (void)memory_->write(Gpa{kCode}, code);
}

/// What an earlier run may have changed: the patch area, and, without CR0.WP, the snippet's own slot and the read-only
/// page.
void Guest::restoreCode(const Snippet& snippet) {
  std::size_t at = snippet.inPatchArea ? patchOffset(snippet) : 0;
  if (snippet.inPatchArea) std::memcpy(patch_.data() + at, snippet.code, snippet.length);
  restore(kPatch, patch_);
  if (snippet.inPatchArea) std::memset(patch_.data() + at, 0xcc, snippet.length);
  if (!kind_.kernel) return;
  if (!snippet.inPatchArea) {
    restore(kCode + snippet.slot * kSlotBytes, std::as_bytes(std::span(snippet.code).first(kSlotBytes)));
  }
  restore(kReadOnly, readOnly_);
}

/// Only what differs, so that translations of the same code may stay.
void Guest::restore(std::uint64_t physical, std::span<const std::byte> content) {
  const std::byte* now = memory_->span(Gpa{physical}, content.size());
  if (std::memcmp(now, content.data(), content.size()) == 0) return;
  for (std::size_t at = 0; at < content.size(); at += 32) {
    std::size_t bytes = std::min<std::size_t>(32, content.size() - at);
    if (std::memcmp(now + at, content.data() + at, bytes) != 0)
      (void)memory_->write(Gpa{physical + at}, content.subspan(at, bytes));
  }
}

/// The page-table entries that snippets may change; for half of the snippets not accessed and not dirty yet.
void Guest::resetEntries(const Snippet& snippet) {
  constexpr std::uint64_t kContent[] = {kData | kWrite, (kData + kPageSize) | kWrite, kReadOnly};
  std::uint64_t used = (snippet.dataSeed & 1) != 0 ? kAccessedDirty : 0;
  for (unsigned n = 0; n < 3; ++n) {
    std::uint64_t linear = dataBase() + kEntryPages[n] * kPageSize, entry = 0;
    // In protected mode the user's pages are the kernel's, too.
    std::uint64_t wanted = kContent[n] | kNoExecute | kPresent | used | (kind_.protectedMode ? kUser : 0);
    (void)memory_->readObject(Gpa{entryOf(linear)}, entry);
    if (entry == wanted) continue;
    (void)memory_->writeObject(Gpa{entryOf(linear)}, wanted);
    x86::flushTlbPage(vcpu_->cpu(), linear);
  }
  // Whatever snippets have stored elsewhere in the table.
  std::uint64_t first = entryOf(dataBase()), table = first & ~kPageMask;
  for (std::uint64_t slot = table; slot < table + kPageSize; slot += 8) {
    if (std::ranges::any_of(kEntryPages, [&](unsigned page) { return slot == first + page * 8; })) continue;
    std::uint64_t entry = 0, wanted = entries_[(slot - table) / 8];
    (void)memory_->readObject(Gpa{slot}, entry);
    if (entry == wanted) continue;
    (void)memory_->writeObject(Gpa{slot}, wanted);
    x86::flushTlbEverything(vcpu_->cpu());
  }
}

void Guest::chill(std::uint64_t random) {
  if (kind_.kernel) return;  // resetEntries() does it, for both guests alike
  for (std::uint64_t page : {kDataBase, kDataBase + kPageSize, kDataAlias, kDataAlias + kPageSize, kReadOnlyBase}) {
    if (kind_.protectedMode && page >> 32 != 0) page &= 0xffff'ffff;
    bool drop = (random & 1) != 0, clean = (random & 6) == 0;
    random >>= 3;
    if (!drop) continue;
    if (clean) {
      std::uint64_t slot = entryOf(page), entry = 0;
      (void)memory_->readObject(Gpa{slot}, entry);
      (void)memory_->writeObject(Gpa{slot}, entry & ~kAccessedDirty);
    }
    x86::flushTlbPage(vcpu_->cpu(), page);
  }
}

void Guest::reset(const Snippet& snippet) {
  Cpu& cpu = vcpu_->cpu();
  CpuState& state = cpu.state;
  bool paging = state.cr0 != initial_.cr0 || state.cr3 != initial_.cr3 || state.cr4 != initial_.cr4 ||
                state.efer != initial_.efer || state.dr[7] != initial_.dr[7];
  state = initial_;
  cpu.events.store(0);
  if (paging) {
    if (cpu.listener) cpu.listener->addressSpaceChanged(false);
    x86::flushTlbEverything(cpu);
  }
  if (cpu.listener) cpu.listener->modeChanged();
  cpu.exception.valid = false;
  cpu.deferredEvents = 0;
  auto load = [&](Segment s, std::uint16_t selector, std::uint64_t base) {
    if (selector == kUserSs) state.segment[s] = {base, 0xffff'ffff, selector, 0xc0f3};
    if (selector == kData16) state.segment[s] = {base, kData16Limit, selector, 0x00f3};
    if (selector == 0) state.segment[s] = {base, 0, 0, 0};
  };
  load(fs, snippet.fsSelector, snippet.before.fsBase);
  load(gs, snippet.gsSelector, snippet.before.gsBase);
  if (snippet.code32 && !kind_.kernel) state.segment[cs] = {0, 0xffffffff, kUserCs32, 0xc0fb};
  if (snippet.code16) {
    state.segment[cs] = {kCode32Base + snippet.slot * kSlotBytes, kCode16Limit, code16Selector(snippet.slot), 0x00fb};
    if (snippet.inPatchArea) state.segment[cs] = {kPatchAlias, kPatchBytes - 1, kPatch16, 0x00fb};
    for (Segment s : {es, ds, ss}) load(s, kData16, kDataAlias);
  }
  std::memcpy(state.gpr, snippet.before.gpr, sizeof state.gpr);
  state.rip = snippet.before.rip;
  state.rflags = snippet.before.rflags;
  std::memcpy(state.xsave, snippet.before.vector.data(), kVectorBytes);
  std::memset(state.xsave + 512, 0, 64);
  state.xsave[512] = static_cast<std::byte>(kVectorComponents);
}

/// What only guests can show. `frame`: RIP, CS, RFLAGS, RSP and SS as the exception frame has them; null without one.
void Guest::note(Outcome& outcome, const std::uint64_t* frame) {
  const CpuState& state = vcpu_->cpu().state;
  std::size_t n = 0;
  auto add = [&](std::uint64_t value) {
    if (n < outcome.system.size()) outcome.system[n++] = value;
  };
  for (std::uint64_t value : {state.cr0,
                              state.cr2,
                              state.cr3,
                              state.cr4,
                              state.efer,
                              state.xcr0,
                              state.dr[0],
                              state.dr[1],
                              state.dr[6],
                              state.dr[7],
                              state.kernelGsBase,
                              state.star,
                              state.lstar,
                              state.sfmask,
                              state.tscAux,
                              state.tscOffset,
                              state.gdtr.base,
                              state.idtr.base,
                              state.tr.base,
                              std::uint64_t{state.cpl},
                              std::uint64_t{state.interruptShadow},
                              frame ? frame[1] : 0,
                              frame ? frame[4] : 0})
    add(value);
  for (unsigned page = 0; page < 3; ++page)
    (void)memory_->readObject(Gpa{entryOf(dataBase() + kEntryPages[page] * kPageSize)}, outcome.entries[page]);
  for (Segment s : {es, cs, ss, ds, fs, gs})
    add(state.segment[s].selector | std::uint64_t{state.segment[s].attributes} << 16);
}

bool Guest::readCode(std::uint64_t linear, std::span<std::byte> to) {
  std::uint64_t entry = 0;
  (void)memory_->readObject(Gpa{entryOf(linear)}, entry);
  if ((entry & kPresent) == 0) return false;
  return memory_->read(Gpa{(entry & 0xffff'ffff'f000) | (linear & kPageMask)}, to);
}

bool Guest::hasSameMemory(const Guest& other) const {
  auto same = [&](std::uint64_t physical, std::size_t bytes) {
    return std::memcmp(memory_->span(Gpa{physical}, bytes), other.memory_->span(Gpa{physical}, bytes), bytes) == 0;
  };
  return same(kData, kDataBytes) && same(kPatch, kPatchBytes);
}

const std::string& Guest::mmioAccesses() const {
  return environment_->text;
}

/// The exception that ended a snippet, by where the CPU halts, and its frame: RIP, CS, RFLAGS, RSP, SS. False: it was
/// none. In protected mode a frame of CPL 0 lies on the snippet's stack, without the last two.
bool Guest::takeFrame(Outcome& outcome, std::uint64_t (&frame)[6]) {
  const CpuState& state = vcpu_->cpu().state;
  std::uint64_t stub = state.rip - (kernelBase() + kStubs), sp = state.gpr[rsp];
  if (stub >= 256 * kHandlerBytes || (!kind_.protectedMode && sp - kernelBase() >= kKernelBytes)) return false;
  outcome.vector = static_cast<std::uint32_t>(stub / kHandlerBytes);
  unsigned size = kind_.protectedMode ? 4 : 8;
  auto pop = [&] {
    std::uint64_t value = 0, linear = kind_.protectedMode ? sp & 0xffff'ffff : sp;
    (void)readCode(linear, std::as_writable_bytes(std::span(&value, 1)).first(size));
    sp += size;
    return value;
  };
  if (hasErrorCode(outcome.vector)) outcome.errorCode = static_cast<std::uint32_t>(pop());
  for (unsigned n = 0; n < 3; ++n) frame[n] = pop();
  bool samePrivilege = kind_.protectedMode && (frame[1] & 3) == 0;
  frame[3] = samePrivilege ? sp : pop();
  frame[4] = samePrivilege ? state.segment[ss].selector : pop();
  return true;
}

std::span<const std::byte> Guest::data() const {
  return {memory_->span(Gpa{kData}, kDataBytes), kDataBytes};
}

void Guest::prepare(const Snippet& snippet) {
  (void)memory_->write(Gpa{kData}, dataPattern(snippet.dataSeed));
  restoreCode(snippet);
  reset(snippet);
  if (kind_.kernel) resetEntries(snippet);
  environment_->forget();
}

Outcome Guest::run(const Snippet& snippet) {
  prepare(snippet);
  CpuState& state = vcpu_->cpu().state;
  Outcome outcome{};
  running_ = true;
  VcpuExit exit = vcpu_->run();
  running_ = false;
  runs_.fetch_add(1);
  std::uint64_t frame[6] = {};
  const std::uint64_t* f = nullptr;
  if (exit == VcpuExit::halted && takeFrame(outcome, frame)) {
    f = frame;
  } else {
    outcome.vector = 0x100 + static_cast<unsigned>(exit);
    outcome.skipped = exit == VcpuExit::stopped;
    vcpu_->cpu().events.store(0);
    state.activity = Activity::running;
    if (!kind_.kernel) return outcome;
  }
  std::memcpy(outcome.after.gpr, state.gpr, sizeof state.gpr);
  outcome.after.rip = f ? f[0] : state.rip;
  outcome.after.rflags = f ? f[2] : state.rflags;
  if (f) outcome.after.gpr[rsp] = f[3];
  outcome.faultAddress = state.cr2;
  std::memcpy(outcome.after.vector.data(), state.xsave, kVectorBytes);
  outcome.dataHash = hashChanges(dataPattern(snippet.dataSeed), memory_->span(Gpa{kData}, kDataBytes));
  outcome.mmioAccesses = environment_->accesses;
  outcome.mmioHash = environment_->hash;
  for (Segment s : {es, cs, ss, ds, fs, gs}) outcome.selectors[s] = state.segment[s].selector;
  if (f) {
    outcome.selectors[cs] = static_cast<std::uint16_t>(f[1]);
    outcome.selectors[ss] = static_cast<std::uint16_t>(f[4]);
  }
  outcome.after.fsBase = state.segment[fs].base;
  outcome.after.gsBase = state.segment[gs].base;
  outcome.patchHash = hashChanges(patchPattern(), memory_->span(Gpa{kPatch}, kPatchBytes));
  if (kind_.kernel) note(outcome, f);
  return outcome;
}

}  // namespace lodge::differential
