// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/engine.h"
#include "tests/differential/snippet.h"

namespace lodge::differential {

/// What a guest is.
struct GuestKind {
  bool kernel = false;         ///< snippets run at CPL 0
  bool protectedMode = false;  ///< not long mode: PAE paging, and 32- or 16-bit code alone
  bool mmio = false;           ///< a device's page is right behind the data pages
  bool segments16 = false;     ///< an LDT with the segments of 16-bit code
};

/// A guest with nothing but page tables, an IDT whose handlers halt, and the snippets' areas at their linear addresses,
/// at user privilege in long mode, unless its kind says otherwise. Runs snippets on any engine.
class Guest {
 public:
  /// `engine`: "interpret" or "translate"; `trace`: EngineSetup::trace.
  static Result<std::unique_ptr<Guest>> create(std::string_view engine, std::string trace, GuestKind kind);
  ~Guest();
  /// Writes a batch's code, each snippet's in its slot.
  void loadCode(std::span<const Snippet> snippets);
  Outcome run(const Snippet& snippet);
  /// The snippet's memory and registers, without running it: run() does this first.
  void prepare(const Snippet& snippet);
  /// Reads at a mapped linear address of the code, patch or data area, within its page; false if it is none of these.
  bool readCode(std::uint64_t linear, std::span<std::byte> to);
  /// The data pages and the patch area are the same in both.
  bool hasSameMemory(const Guest& other) const;
  std::span<const std::byte> data() const;
  /// The accesses of the device's page in the last run, one a line; the first ones.
  const std::string& mmioAccesses() const;
  /// Drops some of the data pages' cached translations, and clears accessed and dirty bits of some of these.
  void chill(std::uint64_t random);
  x86::Cpu& cpu() { return vcpu_->cpu(); }
  /// Snippets run until this takes them for endless.
  void stop() { vcpu_->cpu().raise(x86::event::stop); }
  std::uint64_t runs() const { return runs_.load(); }
  bool isRunning() const { return running_.load(); }
  std::vector<std::pair<std::string, std::uint64_t>> statistics() const { return vcpu_->statistics(); }

 private:
  class Environment;
  Guest() = default;
  void buildTables();
  void map(std::uint64_t linear, std::uint64_t physical, std::uint64_t length, std::uint64_t flags);
  std::uint64_t entryOf(std::uint64_t linear);
  void resetEntries(const Snippet& snippet);
  void restoreCode(const Snippet& snippet);
  void restore(std::uint64_t physical, std::span<const std::byte> content);
  std::uint64_t allocateTable();
  void initialState(x86::CpuState& state) const;
  void kernelState(x86::CpuState& state) const;
  void buildGates();
  void reset(const Snippet& snippet);
  std::uint64_t upper() const { return kind_.kernel && !kind_.protectedMode ? kUpperHalf : 0; }
  std::uint64_t kernelBase() const;
  /// The data pages and their like, and the page tables' page for these, where snippets use them.
  std::uint64_t dataBase() const { return kind_.protectedMode ? kDataAlias : kDataBase + upper(); }
  bool takeFrame(Outcome& outcome, std::uint64_t (&frame)[6]);
  void buildGdt();
  void note(Outcome& outcome, const std::uint64_t* frame);

  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<x86::CpuModel> model_;
  std::unique_ptr<Environment> environment_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Vcpu> vcpu_;
  x86::CpuState initial_{};
  std::vector<std::byte> readOnly_;
  std::vector<std::uint64_t> entries_;  ///< of the page tables' page that snippets at CPL 0 may change
  std::vector<std::byte> patch_ = std::vector<std::byte>(kPatchBytes, std::byte{0xcc});  ///< without a snippet
  std::uint64_t nextTable_ = 0;
  std::uint64_t root_ = 0;
  GuestKind kind_;
  std::atomic<std::uint64_t> runs_{0};
  std::atomic<bool> running_{false};
};

}  // namespace lodge::differential
