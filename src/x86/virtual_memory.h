// SPDX-License-Identifier: Apache-2.0
// Linear memory as the guest's instructions see it: paging walk, the small TLB, accesses of any size and alignment.
// All functions run with guest vector registers live (no libc, no vector code).
#pragma once

#include <cstdint>

#include "x86/cpu.h"

namespace lodge::x86 {

enum class Access : std::uint8_t { read, write, execute };

/// Whose rights an access has. `implicitSupervisor`: descriptor tables, TSS (always CPL 0 rights, SMAP applies although
/// AC=1).
enum class Privilege : std::uint8_t { current, implicitSupervisor };

/// What a page walk found.
struct PageTranslation {
  std::uint64_t gpa;       ///< of the byte asked for
  std::uint64_t pageSize;  ///< 4 KiB, 2 MiB, 4 MiB or 1 GiB
  bool user;               ///< U/S of all levels
  bool writable;           ///< R/W of all levels (not: whether this access may write)
  bool noExecute;
  bool global;
  bool dirty;  ///< D is set now
  std::uint8_t protectionKey;
};

/// Walks the guest's page tables for one access, with all checks of SDM vol. 3 chapter 4 (canonical form is the
/// caller's), setting A (and D for writes) with a locked compare-exchange. False: cpu.exception holds the #PF with its
/// error code and address, and no A/D bit beyond what hardware may set was set. Without paging: identity.
bool translate(Cpu& cpu, std::uint64_t linear, Access access, Privilege privilege, PageTranslation& out);

/// Accesses by linear address; split at page ends with both pages checked before anything is read or written, MMIO
/// included. `size`: 1, 2, 4, 8 bytes. False: cpu.exception is set (#PF; canonical checks are done by the
/// effective-address functions below) and nothing was written.
bool readLinear(Cpu& cpu, std::uint64_t linear, unsigned size, std::uint64_t& value,
                Privilege privilege = Privilege::current);
bool writeLinear(Cpu& cpu, std::uint64_t linear, unsigned size, std::uint64_t value,
                 Privilege privilege = Privilege::current);
/// Larger operands (vector, FXSAVE areas): whole or nothing. `buffer` is host memory of `size` bytes.
bool readLinearBytes(Cpu& cpu, std::uint64_t linear, void* buffer, unsigned size);
bool writeLinearBytes(Cpu& cpu, std::uint64_t linear, const void* buffer, unsigned size);
/// Checks that [linear, linear+size) may be accessed so, faulting as the access would; touches nothing else.
bool probeLinear(Cpu& cpu, std::uint64_t linear, unsigned size, Access access);

/// Host address of [linear, linear+size) for an atomic read-modify-write, if it lies in one RAM page that may be
/// written; null with cpu.exception.valid set on a fault, null with it clear where it must be emulated (MMIO, page
/// crossing: the caller stops the other vCPUs or goes through a buffer). After the store the caller calls wroteTo().
std::byte* writablePointer(Cpu& cpu, std::uint64_t linear, unsigned size);
/// After a store through writablePointer(): tells the translator if the page holds (or came to hold) translated code.
/// May park vector state. See x86/tlb.h for the protocol.
void wroteTo(Cpu& cpu, std::byte* pointer, unsigned size);
/// Same for plain reads.
const std::byte* readablePointer(Cpu& cpu, std::uint64_t linear, unsigned size);

/// Fetches up to 15 instruction bytes at CS:RIP into `bytes`; returns how many could be had without a fault beyond the
/// first page. Zero: cpu.exception is set (#PF with the fetch bit, or #GP for limit/canonical).
unsigned fetchInstruction(Cpu& cpu, std::uint8_t (&bytes)[15]);

/// Segment + offset to linear, with limit, type, null and canonical checks for `size` bytes (SDM vol. 3, 5.3-5.4; vol.
/// 1, 3.3.7.1). False: cpu.exception is #GP(0), or #SS(0) for SS.
bool linearAddress(Cpu& cpu, Segment segment, std::uint64_t offset, unsigned size, Access access,
                   std::uint64_t& linear);

/// TLB maintenance; each also tells cpu.listener.
void flushTlbPage(Cpu& cpu, std::uint64_t linear);
void flushTlb(Cpu& cpu, bool globalToo);
void flushTlbEverything(Cpu& cpu);
/// Empties Cpu's own TLB only, and tells nobody.
void clearTlb(Cpu& cpu);

}  // namespace lodge::x86
