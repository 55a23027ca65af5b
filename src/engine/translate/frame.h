// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/translate/frame_layout.h"
#include "x86/cpu.h"

namespace lodge::translate {

/// Why translated code came back to the dispatcher.
enum class ExitReason : std::uint32_t {
  attention = EXIT_ATTENTION,    ///< something to look at; state is precise
  redo = EXIT_REDO,              ///< as attention, RIP to be found from Frame::exitAddress
  step = EXIT_STEP,              ///< the instruction that belongs to exitAddress must be interpreted
  link = EXIT_LINK,              ///< a direct branch's stub (exitAddress) wants to be linked
  indirect = EXIT_INDIRECT,      ///< indirect branch to `target`, which has no translation yet
  dispatch = EXIT_DISPATCH,      ///< go on at state.rip
  misaligned = EXIT_MISALIGNED,  ///< the access that belongs to exitAddress is often misaligned
  fault = EXIT_FAULT,            ///< the host raised a signal at the instruction at state.rip
};

/// The page below CpuState: what translated code and trampolines keep for themselves. One per vCPU, used by its thread
/// only.
struct Frame {
  std::byte unused[FRAME_SIZE + FRAME_RETURN_MASK32];
  std::uint64_t returnMask32, returnMask64;  ///< ReturnCache's PEXT masks
  std::uint32_t misaligned;  ///< counts down how often the quick test for accesses that cross a page was wrong
  std::uint32_t padding1;
  static constexpr std::uint32_t kMisaligned = 256;
  std::uint64_t hostStack;        ///< C++'s RSP while translated code runs
  std::uint64_t segmentGuard[2];  ///< FS's and GS's, for 32-bit code: segmentGuard()
  std::uint64_t stiRip;           ///< what follows the STI that set IF last: an interrupt there waits one instruction
  std::uint32_t userKey;          ///< ModeKey of user code after SYSRET as things are; 0: not known, go the long way
  std::uint32_t kernelKey;        ///< ModeKey of kernel code after SYSCALL, the same
  std::uint32_t key;              ///< ModeKey of the code that runs
  std::uint32_t padding0;
  std::uint64_t target;             ///< indirect branch target (r13's value: tagged by mode)
  std::uint64_t scratch[3];         ///< host r12, r13, r14 as they were at an exit
  std::uint64_t exitAddress;        ///< host address in the code cache that the exit belongs to
  std::uint64_t maskLow, maskBoth;  ///< PEXT masks: bits 12-46 and 12-47
  std::uint64_t byteTemp;           ///< AH..BH on their way to and from memory
  std::uint64_t savedRax;           ///< guest RAX while its register holds saved flags
  std::uint64_t spare;
  volatile std::uint32_t attention;  ///< nonzero: leave translated code at the next border; see signals.h
  std::uint32_t padding;
  std::uint64_t page;        ///< linear page >> 12 of the shared code that runs (PageUnit::isShared)
  std::uint64_t savedFlags;  ///< SETO in bits 0-7, LAHF in bits 8-15
  std::byte pushArea[64];    ///< CALLs from translated code push here
};

static_assert(sizeof(Frame) == FRAME_SIZE);
#define LODGE_FRAME_OFFSET(member) (static_cast<long>(offsetof(Frame, member)) - FRAME_SIZE)
static_assert(LODGE_FRAME_OFFSET(target) == FRAME_TARGET);
static_assert(LODGE_FRAME_OFFSET(key) == FRAME_KEY);
static_assert(LODGE_FRAME_OFFSET(kernelKey) == FRAME_KERNEL_KEY);
static_assert(LODGE_FRAME_OFFSET(userKey) == FRAME_USER_KEY);
static_assert(LODGE_FRAME_OFFSET(stiRip) == FRAME_STI_RIP);
static_assert(LODGE_FRAME_OFFSET(segmentGuard) == FRAME_SEGMENT_GUARD);
static_assert(LODGE_FRAME_OFFSET(scratch) == FRAME_SCRATCH12);
static_assert(LODGE_FRAME_OFFSET(exitAddress) == FRAME_EXIT_ADDRESS);
static_assert(LODGE_FRAME_OFFSET(maskLow) == FRAME_MASK_LOW);
static_assert(LODGE_FRAME_OFFSET(maskBoth) == FRAME_MASK_BOTH);
static_assert(LODGE_FRAME_OFFSET(byteTemp) == FRAME_BYTE_TEMP);
static_assert(LODGE_FRAME_OFFSET(savedRax) == FRAME_SAVED_RAX);
static_assert(LODGE_FRAME_OFFSET(attention) == FRAME_ATTENTION);
static_assert(LODGE_FRAME_OFFSET(hostStack) == FRAME_HOST_STACK);
static_assert(LODGE_FRAME_OFFSET(page) == FRAME_PAGE);
static_assert(LODGE_FRAME_OFFSET(misaligned) == FRAME_MISALIGNED);
static_assert(LODGE_FRAME_OFFSET(returnMask64) == FRAME_RETURN_MASK64);
static_assert(LODGE_FRAME_OFFSET(returnMask32) == FRAME_RETURN_MASK32);
static_assert(LODGE_FRAME_OFFSET(savedFlags) == FRAME_SAVED_FLAGS);
#undef LODGE_FRAME_OFFSET
static_assert(offsetof(x86::CpuState, gpr) == 0);
static_assert(offsetof(x86::CpuState, rip) == STATE_RIP);
static_assert(offsetof(x86::CpuState, rflags) == STATE_RFLAGS);
static_assert(offsetof(x86::CpuState, segment) == STATE_SEGMENT && sizeof(x86::SegmentRegister) == 16);
static_assert(offsetof(x86::CpuState, cpl) == STATE_CPL);
static_assert(offsetof(x86::CpuState, star) == STATE_STAR);
static_assert(offsetof(x86::CpuState, lstar) == STATE_LSTAR);
static_assert(offsetof(x86::CpuState, sfmask) == STATE_SFMASK);
static_assert(offsetof(x86::Cpu, events) == CPU_EVENTS);
static_assert(offsetof(x86::Cpu, deferredEvents) == CPU_DEFERRED);

}  // namespace lodge::translate
