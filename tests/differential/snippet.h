// SPDX-License-Identifier: Apache-2.0
// What the differential test runs, and what it compares: a few instructions with a whole register state, at fixed
// linear addresses that are the same in the host process that runs them natively and in the guest.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "x86/instruction.h"

namespace lodge::differential {

// Linear layout. Everything around these areas is unmapped on both sides.
inline constexpr std::uint64_t kCodeBase = 0x1'0000'0000;  ///< read + execute
inline constexpr std::uint64_t kSlotBytes = 224;           ///< one snippet's room; the rest is filled with INT3
inline constexpr unsigned kBatch = 2048;
inline constexpr std::uint64_t kCodeBytes = (kSlotBytes * kBatch + 4095) / 4096 * 4096;
inline constexpr std::uint64_t kPatchBase = 0x1'1000'0000;  ///< read + write + execute, for code that changes itself
inline constexpr std::uint64_t kPatchBytes = 2 * 4096;
inline constexpr std::uint64_t kDataBase = 0x2'1000'0000;  ///< two pages, read + write
inline constexpr std::uint64_t kDataBytes = 2 * 4096;
inline constexpr std::uint64_t kDataAlias = kDataBase & 0xffff'ffff;  ///< the same memory, within 32-bit addresses
inline constexpr std::uint64_t kReadOnlyBase = kDataBase + 4 * 4096;  ///< one page, read only
inline constexpr std::uint64_t kReadOnlyBytes = 4096;

/// 32-bit code: the same memory as the code area, the read-only page and the patch area, within 32-bit addresses.
inline constexpr std::uint64_t kCode32Base = 0x2000'0000;
inline constexpr std::uint64_t kReadOnlyAlias = kReadOnlyBase & 0xffff'ffff;
inline constexpr std::uint64_t kPatchAlias = kReadOnlyAlias + 2 * 4096;

/// 16-bit code: each slot is a code segment of its own, of which IP 0 is the first byte, so that stray jumps do not
/// meet other snippets. The data segment begins with the data pages, the read-only page and the patch area have their
/// places in it, and it ends before 64 KiB. The patch area is a code segment of its own, too.
inline constexpr std::uint32_t kCode16Limit = kSlotBytes - 1, kData16Limit = 0xbfff;
/// Their selectors: in the LDT, DPL 3.
inline constexpr std::uint16_t kData16 = kBatch << 3 | 7, kPatch16 = (kBatch + 1) << 3 | 7;
inline constexpr std::uint16_t code16Selector(unsigned slot) {
  return static_cast<std::uint16_t>(slot << 3 | 7);
}

/// In kernel mode (guests only) code and data lie in the upper half, this much higher; the data and the code are user
/// pages at their addresses in the lower half.
inline constexpr std::uint64_t kUpperHalf = 0xffff'9000'0000'0000;

/// In kernel mode: the page-table entries of the data and read-only pages in the upper half, to be changed.
inline constexpr std::uint64_t kEntriesBase = kUpperHalf + 0x3'0000'0000, kEntriesAlias = 0x3000'0000;
inline constexpr unsigned kEntryPages[] = {0, 1, 4};  ///< pages from kDataBase on

/// In protected mode: the guest's kernel, at no address that is a power of two.
inline constexpr std::uint64_t kKernel32Base = 0xc35a'0000, kKernelBytes = 0x10000;

/// Where both sides are guests, and it is asked for: a device's page right behind the data pages. What is read there
/// depends on the address and on how many accesses there were before.
inline constexpr std::uint64_t kMmioBase = kDataBase + kDataBytes;

/// The legacy region of an XSAVE area (512 bytes), the header (64), the upper halves of YMM (256), and AVX-512 state
/// where the host keeps it.
inline constexpr std::size_t kVectorBytes = 2688;
/// Components of it that are compared.
inline constexpr std::uint64_t kVectorComponents = 0xe7;

/// Bytes of vector state in a signal frame.
std::size_t frameBytes(const std::byte* vector);

/// Where the host keeps AVX-512 state: offsets of mask registers, upper halves of ZMM0-15, and ZMM16-31; 0 without.
struct Avx512Layout {
  std::size_t masks, upperHalves, upperRegisters;
};
const Avx512Layout& avx512Layout();

struct Registers {
  std::uint64_t gpr[16];
  std::uint64_t rip;
  std::uint64_t rflags;
  std::uint64_t fsBase, gsBase;
  alignas(64) std::array<std::byte, kVectorBytes> vector;
};

struct Snippet {
  /// Padded with INT3. What is longer than a slot was not finished in time and is not run.
  std::uint8_t code[kSlotBytes + 64];
  unsigned length;         ///< bytes of instructions
  bool inPatchArea;        ///< runs at before.rip in the patch area, which is INT3 otherwise; else in its slot
  bool code32;             ///< 32-bit code (compatibility mode)
  bool code16;             ///< 16-bit code, data and stack segments
  bool restated;           ///< the code of the snippet before, on another state
  std::uint16_t pointers;  ///< registers (bits) whose values the code counts on
  unsigned slot;           ///< where its code lies in a batch's; restated ones share one
  Registers before;
  std::uint16_t fsSelector, gsSelector;  ///< their bases are in `before`
  std::uint64_t dataSeed;                ///< chooses what the data pages hold
};

inline x86::CodeSize codeSize(const Snippet& s) {
  if (s.code16) return x86::CodeSize::bits16;
  return s.code32 ? x86::CodeSize::bits32 : x86::CodeSize::bits64;
}

/// Where in the patch area a snippet begins that runs there.
inline std::uint64_t patchOffset(const Snippet& s) {
  return (s.before.rip - (s.code16 ? 0 : s.code32 ? kPatchAlias : kPatchBase)) & 0xffff;
}

struct Outcome {
  Registers after;       ///< RIP as the exception frame has it
  std::uint32_t vector;  ///< the exception that ended it (3: ran to the end, or INT3)
  std::uint32_t errorCode;
  std::uint64_t faultAddress;              ///< CR2, for vector 14
  std::uint32_t dataHash;                  ///< of the data pages afterwards
  std::uint32_t patchHash;                 ///< of the patch area
  std::array<std::uint16_t, 6> selectors;  ///< ES, CS, SS, DS, FS, GS
  std::array<std::uint64_t, 40> system;    ///< control registers and the like, where both sides are guests
  std::array<std::uint64_t, 3> entries;    ///< of kEntryPages, in kernel mode
  std::uint64_t mmioAccesses;              ///< of the device's page
  std::uint64_t mmioHash;                  ///< of their kinds, addresses, sizes and values, in their order
  bool skipped;                            ///< the host could not run it (made a system call, hung)
};

/// Whether user code of the host may use RDFSBASE and its kin (then snippets have FS and GS bases of their own).
bool hostHasFsgsbase();
/// What the data pages hold before a snippet with this data seed; there are 64 contents.
std::span<const std::byte, kDataBytes> dataPattern(std::uint64_t seed);
/// What the patch area holds before a snippet's code is put there: INT3.
std::span<const std::byte, kPatchBytes> patchPattern();
/// A hash of what changed, by lines of 64 bytes. `after` has as many bytes as `before`.
std::uint32_t hashChanges(std::span<const std::byte> before, const std::byte* after);

}  // namespace lodge::differential
