// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/translate/frame.h"
#include "memory/guest_memory.h"
#include "x86/cpu.h"

namespace lodge::translate {

struct VcpuContext;

/// `--trace lockstep`: at every exit from translated code the interpreter does the same again from the same state and
/// memory, one instruction at a time, until registers, vector state and memory are as the translator left them. If they
/// never are, the difference is reported, and the guest goes on with what the translator made.
///
/// While it is on, guest RAM is write-protected in the CPU view; the first store to a page in an interval copies the
/// page. Call-outs leave translated code, the clock is read in call-outs only. One vCPU; devices that write to RAM from
/// their own threads while translated code runs (disks, networks) may be seen as differences; x87 instruction and data
/// pointers, and accessed and dirty bits in page tables, are not compared. Needs userfaultfd, which finds stores to
/// code behind the write protection.
class Lockstep {
 public:
  /// Errors: unsupported (several vCPUs, no userfaultfd), outOfMemory.
  static Result<std::unique_ptr<Lockstep>> create(VcpuContext& context, unsigned cpus);
  ~Lockstep();

  /// Translated code is about to be entered; parks vector state.
  void begin();
  /// It was left, state is complete. Parks vector state.
  void check(ExitReason reason);
  /// A store faulted at `address`: lets it through and keeps what was there. False: it is none of ours. From signal
  /// handlers.
  bool openPage(std::uint64_t address);

  std::uint64_t checks() const { return checks_; }
  std::uint64_t instructions() const { return instructions_; }
  std::uint64_t divergences() const { return divergences_; }

 private:
  Lockstep(VcpuContext& context) : context_(context) {}
  struct Page {
    std::uint64_t ramPage;
    std::byte *before, *after;
  };
  class Silence;
  std::byte* ram(std::uint64_t ramPage) const;
  void protect(std::uint64_t ramPage, bool on) const;
  void rewind();
  bool isBeforePopf() const;
  bool replay(std::uint64_t limit);
  bool sameMemory(std::uint64_t& address) const;
  void finish();
  void report(ExitReason reason);

  static constexpr unsigned kPages = 4096;                ///< copied in an interval at most
  static constexpr unsigned kManyPages = 2048;            ///< from then on, translated code is left
  static constexpr std::uint64_t kLimit = 1'000'000'000;  ///< instructions to try for one interval
  static constexpr unsigned kMaxReports = 10;

  VcpuContext& context_;
  x86::CpuState before_, after_;
  bool popsFlags_ = false;  ///< the next instruction loads all arithmetic flags
  bool lost_ = false;       ///< more pages were stored to than can be copied
  bool recording_ = false;  ///< pages are copied: translated code runs, or its replay
  std::byte* copies_ = nullptr;
  unsigned pageCount_ = 0, pagesOfTranslator_ = 0;
  std::array<Page, kPages> pages_;
  std::vector<std::uint8_t> isOpen_;  ///< by RAM page
  std::vector<std::uint32_t> open_;   ///< RAM pages, reserved for all
  std::uint64_t checks_ = 0, instructions_ = 0, divergences_ = 0;
  struct Past {
    std::uint64_t from, to;
    ExitReason reason;
  };
  std::array<Past, 16> past_{};
  /// The last interval's failed replay: where RIP was right, and what differed least.
  std::string nearest_;
  unsigned nearestDifferences_ = 0;
};

}  // namespace lodge::translate
