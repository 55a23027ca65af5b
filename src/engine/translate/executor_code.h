// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "engine/translate/assembler.h"
#include "engine/translate/block.h"
#include "engine/translate/executor_process.h"

namespace lodge::translate {

/// The translated code of one guest program, for its executor. Addresses need no translation there and all registers
/// are the guest's own, so that nearly every instruction is the guest's, byte for byte; only branches, RIP-relative
/// operands and what the kernel or the machine answers are not. Used by the vCPU's thread, with vector state parked.
class ExecutorCode {
 public:
  /// What holds at a host address.
  struct Place {
    enum class Kind : std::uint8_t {
      boundary,  ///< registers are the guest's, at the start of the instruction at `rip` (or a fault inside it)
      restore,   ///< the same, but register `reg` is in the first spill word
      restore3,  ///< the same, but RCX, RDX and RAX are in the three
      between,   ///< an instruction has begun to change registers; a few more host instructions end it
    };
    std::uint64_t rip;
    Kind kind;
    std::uint8_t reg;
  };

  ExecutorCode(ExecutorProcess& process, std::uint64_t features, x86::TscScale tscScale = {});

  /// Host address of the code for `rip`; 0 if there is none.
  std::uint64_t find(std::uint64_t rip) const;
  /// Translates what begins at `rip`. `page`: the 4096 bytes of its page; `next`: those of the next page, or null.
  /// `block`: work space, which tells afterwards what was translated. Returns the host address; 0: there is no room.
  std::uint64_t translate(Block& block, std::uint64_t rip, ModeKey key, const std::uint8_t* page,
                          const std::uint8_t* next);
  /// What the last translate() leads to: targets of branches, and where calls return to (`isReturn`).
  struct Successor {
    std::uint64_t rip;
    bool isReturn;
  };
  const std::vector<Successor>& successors() const { return successors_; }
  /// Leads direct branches from number `first` on to code that has been translated since.
  void followFrom(std::uint32_t first);
  std::uint32_t linkCount() const { return static_cast<std::uint32_t>(links_.size()); }
  /// The guest's target of direct branch number `link`; 0 if there is none of that number.
  std::uint64_t linkTarget(std::uint32_t link) const { return link < links_.size() ? links_[link].target : 0; }
  /// Leads it to `host` from now on.
  void follow(std::uint32_t link, std::uint64_t host);
  /// Host address of a jump to the guest's own address `rip`, where code runs as it is; 0: there is no room.
  std::uint64_t wayTo(std::uint64_t rip);
  /// Code of the guest's may run as it is beside this: x87 instructions are the interpreter's here, so that what they
  /// note of themselves is the guest's.
  void setStepsX87(bool steps) { stepsX87_ = steps; }
  /// The guest's address of indirect branch number `site`; 0 if there is none of that number.
  std::uint64_t siteOf(std::uint32_t site) const { return site < sites_.size() ? sites_[site] : 0; }
  /// Indirect branches find `host` from now on; with `first`, quickly.
  void enterTarget(std::uint64_t rip, std::uint64_t host, bool first);
  /// The same, if they found something for `rip` before.
  void correctTarget(std::uint64_t rip, std::uint64_t host);
  /// False: `host` is no address of translated code.
  bool locate(std::uint64_t host, Place& place) const;
  /// Forgets what begins in the page: whoever leads there stops, until there is new code.
  void dropPage(std::uint64_t page);
  /// Forgets everything.
  void clear();
  /// Of memory, with what describes the code.
  std::uint64_t bytes() const;

 private:
  struct Link {
    std::uint64_t target;
    std::uint32_t rel32;  ///< offset in the code memory
  };
  struct Pending {
    std::uint32_t rel32;  ///< offset in the block's code
    std::uint64_t target;
  };

  void begin(Assembler& a, std::uint32_t offset);
  std::int32_t distance(std::uint64_t host) const;
  void note(Place::Kind kind, std::uint64_t rip, std::uint8_t reg = 0);
  void noteCold(std::uint32_t number);
  bool hasRoom() const;
  std::uint32_t offsetOf(const Assembler& a) const;
  bool emit(const GuestInstruction& g);
  bool branch(const GuestInstruction& g);
  bool asItIs(const x86::Instruction& i) const;
  bool relative(const GuestInstruction& g);
  bool loadsOver(const x86::Instruction& i) const;
  void timeStamp(const GuestInstruction& g);
  bool indirect(const GuestInstruction& g);
  void ret(const GuestInstruction& g);
  void pushReturn(std::uint64_t address);
  void lookUpRcx(std::uint64_t rip);
  void jumpToTarget();
  void jumpTo(std::uint32_t rel32, std::uint64_t target);
  void exitForStep(std::uint64_t rip);
  void exitForLink(std::uint64_t target, std::uint32_t rel32);
  void finish();

  ExecutorProcess& process_;
  std::uint64_t features_;
  x86::TscScale tscScale_;
  std::uint32_t used_ = 0, coldUsed_ = 0;  ///< ends of code and of what is out of line, in the code memory
  std::unordered_map<std::uint64_t, std::uint32_t> blocks_;  ///< offsets in the code memory, by guest address
  std::unordered_map<std::uint64_t, std::vector<std::uint64_t>> byPage_;  ///< guest addresses of blocks
  // Each in the order of `host`, an offset in the code memory.
  struct Start {
    std::uint32_t host;
    std::uint64_t rip;
  };
  std::vector<Start> starts_;  ///< of blocks
  struct Note {
    std::uint32_t host;
    std::uint16_t offset;  ///< of the instruction from its block's first
    Place::Kind kind;
    std::uint8_t reg;
  };
  std::vector<Note> notes_;
  struct ColdNote {
    std::uint32_t host, number;  ///< of a link; kSite and more: of a site; kWay and more: of a way
  };
  static constexpr std::uint32_t kSite = 1u << 30, kWay = 1u << 31;
  std::vector<ColdNote> coldNotes_;
  std::vector<Link> links_;
  std::vector<std::uint32_t> entered_, entered2_;          ///< places of the tables that are taken
  std::vector<std::uint64_t> sites_;                       ///< guest addresses of indirect branches
  std::unordered_map<std::uint64_t, std::uint32_t> ways_;  ///< offsets in the code memory, by guest address
  std::vector<std::uint64_t> wayTargets_;
  bool stepsX87_ = false;

  // While a block is translated.
  const Block* block_ = nullptr;
  Assembler a_, cold_;
  std::vector<Pending> jumps_;
  struct Pool {
    std::uint32_t displacement;  ///< of a RIP-relative operand: offset in the block's code
    std::uint64_t value;
  };
  std::vector<Pool> pool_;
  struct Miss {
    std::uint32_t rel32, found;  ///< offsets in the block's code: of the jump, of where it goes on
    std::uint64_t rip;
  };
  std::vector<Miss> misses_;  ///< of indirect branches
  std::vector<Successor> successors_;
  std::vector<std::uint64_t> entries_;  ///< host addresses of the block's instructions so far
};

}  // namespace lodge::translate
