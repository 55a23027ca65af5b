// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

#include "engine/translate/address_space.h"
#include "engine/translate/frame.h"
#include "engine/translate/mode_key.h"
#include "engine/translate/time_samples.h"
#include "engine/translate/trampolines.h"
#include "engine/translate/translation_store.h"
#include "x86/cpu.h"

namespace lodge::translate {

/// Counters of one vCPU, written by its thread.
struct VcpuCounters {
  std::uint64_t exits[EXIT_MISALIGNED + 1] = {};
  std::uint64_t tlbMisses = 0, tlbMissesFailed = 0, indirectMisses = 0;
  std::uint64_t callouts = 0, steps = 0, interpreted = 0, signals = 0, flushes = 0, addressSpaceSwitches = 0;
  /// Signals by cause: stores to pages entered for reading, stores to pages with translated code, branches to where no
  /// code is entered.
  std::uint64_t readOnlyStores = 0, codeStores = 0, emptyEntries = 0;
};

/// Everything about one vCPU that trampolines' C++, the dispatcher and signal handlers share. Used by the vCPU's
/// thread; leave() by any.
struct VcpuContext final : CodeUser, x86::TranslationCacheListener {
  x86::Cpu* cpu = nullptr;
  Frame* frame = nullptr;
  AddressSpaces* spaces = nullptr;
  TranslationStore* store = nullptr;
  std::uint32_t mapKey[4] = {};     ///< by ExecMode: the key of the code in that mode's maps; 0: none yet
  std::uint64_t generation = 0;     ///< of the store, that the code maps are of
  std::uint64_t joinAt = kNowhere;  ///< an instruction that goes on in the next page, for the store's join()
  std::uint64_t returnsOf = 0;      ///< TranslationStore::invalidations() that the return caches hold for
  bool codeDropped = false;         ///< a code page's mapping went since translated code was entered
  bool stepping = false;            ///< a signal handler runs the thread to the next instruction boundary
  bool countOps = false;
  class Executors* executors = nullptr;  ///< null: none are used
  class Lockstep* lockstep = nullptr;    ///< if every exit is checked
  std::uint64_t userFaults = 0;          ///< and interpreted calls of the kernel
  bool stepPending = false;              ///< in lockstep: translated code was left before a call-out, to be done
  int threadId = 0;
  /// For tests: translated code runs with the trap flag set, and this is called before each of its host instructions
  /// with the guest's state as a fault there would have it (null where the code is committing). Vector state is in the
  /// signal frame.
  void (*onHostStep)(VcpuContext& context, const x86::CpuState* state, const void* ucontext, void* argument) = nullptr;
  void* hostStepArgument = nullptr;
  VcpuCounters counters;
  TimeSamples samples;
  struct SteppedOp {
    std::uint64_t count = 0;
    const char* mnemonic = nullptr;
  };
  std::array<SteppedOp, static_cast<std::size_t>(x86::Op::kCount)> steppedOps{};  ///< if countOps

  /// Page units of kernelAc code, which has no map.
  struct AcPage {
    std::uint64_t page = 1;
    PageUnit* unit = nullptr;
  };
  std::array<AcPage, 16> acPages;
  AcPage& acPage(std::uint64_t linear) { return acPages[linear >> 12 & 15]; }

  /// Of the code that runs. Translated code changes it, too.
  ModeKey key() const { return {frame->key}; }
  void setKey(ModeKey key);
  void prepare32();
  /// After an instruction was interpreted: 1 if execution goes on at `next` in the same translation, the host address
  /// of the code to go on at if there is one, else 0 (the dispatcher must look).
  std::uint64_t resume(std::uint64_t next, std::uint64_t invalidationsBefore);

  /// The unit that the code maps know for `linear` in the current mode; null if none.
  PageUnit* knownUnit(std::uint64_t linear);
  bool wantsJoin(std::uint64_t rip);
  void dropCode();
  /// Before translated code is entered: what others dropped since then.
  void checkReturns() {
    std::uint64_t now = store->invalidations();
    if (now == returnsOf) return;
    returnsOf = now;
    spaces->dropReturns();
  }
  /// modeKey() of the state; in lockstep, code that reads the clock is the interpreter's.
  ModeKey modeNow() const;
  /// Interprets the instruction at state.rip.
  void step();

  void flushPage(std::uint64_t linear) override;
  void flushAll(bool globalToo) override;
  void flushPcid(std::uint16_t pcid) override;
  void flushPcidPage(std::uint16_t pcid, std::uint64_t linear) override;
  void flushEverything() override;
  void addressSpaceChanged(bool noFlush) override;
  void modeChanged() override;

  std::uint64_t lastControl[3] = {};  ///< CR0, CR4, EFER that the code maps hold for

  static VcpuContext& of(x86::CpuState* state) {
    return *static_cast<VcpuContext*>(reinterpret_cast<x86::Cpu*>(state)->engineData);
  }
};
static_assert(offsetof(x86::Cpu, state) == 0);

inline void setTrapFlag(bool on) {
  std::uint64_t flags = __builtin_ia32_readeflags_u64();
  __builtin_ia32_writeeflags_u64(on ? flags | x86::flag::tf : flags & ~std::uint64_t{x86::flag::tf});
}

/// C++ that translated code calls is not to be single-stepped (VcpuContext::onHostStep).
class StepPause {
 public:
  explicit StepPause(const VcpuContext& context) : on_(context.onHostStep != nullptr) {
    if (on_) setTrapFlag(false);
  }
  ~StepPause() {
    if (on_) setTrapFlag(true);
  }
  StepPause(const StepPause&) = delete;
  StepPause& operator=(const StepPause&) = delete;

 private:
  bool on_;
};

}  // namespace lodge::translate
