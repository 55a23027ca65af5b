// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

#include "engine/translate/address_space.h"
#include "engine/translate/assembler.h"
#include "engine/translate/block.h"
#include "engine/translate/groups.h"
#include "engine/translate/host_features.h"
#include "engine/translate/loops.h"
#include "engine/translate/translation.h"

namespace lodge::translate {

/// Addresses in the code cache of jumps to trampolines.S.
struct Thunks {
  std::uint64_t missRead, missWrite, exitLink, exitStep, exitMisaligned, callStep, indirectMiss, syscall, sysret;
  std::uint64_t mayCross[3];  ///< accesses of 2, 4 and 8 bytes that are not aligned
};

/// What rewriting a block gives, besides the code in the assemblers.
struct RewrittenCode {
  static constexpr unsigned kMaxRecords = 512;
  static constexpr unsigned kMaxLinks = 3 * Block::kMaxInstructions + 2;
  struct LinkPlan {
    std::uint64_t rel32, stub;
    std::uint16_t targetOffset;
    bool ungrouped;  ///< to code without groups
    std::uint32_t key;
  };
  std::array<Record, kMaxRecords> hot, cold;
  unsigned hotCount = 0, coldCount = 0;
  std::array<LinkPlan, kMaxLinks> links;
  unsigned linkCount = 0;
  unsigned loopCount = 0;  ///< copies of loops without probes
};

/// Turns one guest block into host code: the heart of the translator. See docs/translator.md for the conventions.
///
/// Per guest instruction: prepare (scratch registers only), commit (one host instruction that changes guest state and
/// may fault), and at most a few fix-ups that cannot fault (stores to the slots of guest r12-r15, moves of the stack
/// pointer). The records say which part a host address belongs to. Not thread-safe; one use.
class Rewriter {
 public:
  /// Of records: more than any one guest instruction needs.
  static constexpr unsigned kRecordRoom = 32;

  Rewriter(const Block& block, const GroupPlan& groups, const LoopPlan& loops, Assembler& hot, Assembler& cold,
           const Thunks& thunks, const HostFeatures& host, RewrittenCode& out)
      : block_(block),
        groups_(groups),
        loops_(loops),
        hot_(hot),
        cold_(cold),
        thunks_(thunks),
        host_(host),
        out_(out) {}

  /// Translates the whole block, or as much of it as fits (at least one instruction). Returns how many instructions.
  unsigned run();

 private:
  // --- rewriter.cpp: driver, records, registers
  void rewrite(const GuestInstruction& g);
  void rewriteSpecial(const GuestInstruction& g);
  void interpretInstead(const GuestInstruction& g);
  void record(RecordKind kind, unsigned value, bool isEntry = false);
  void recordCold(RecordKind kind, unsigned value);
  void committing() { record(RecordKind::committing, current_->offset); }
  static bool isSpilled(std::uint8_t guest) { return guest >= 12 && guest <= 15; }
  static std::uint8_t hostOf(std::uint8_t guest) { return guest == x86::rsp ? host::guestRsp : guest; }
  static Mem slot(std::uint8_t guest) { return atState(guest * 8); }
  bool flagsDead() const { return current_->liveIn == 0; }
  void saveFlags();
  void restoreFlags();
  /// A linear address that is known relative to the block's page.
  void movLinear(Assembler& a, std::uint8_t to, std::uint64_t linear);
  std::int32_t pageBase(Assembler& a, std::uint8_t to, std::uint64_t linear);

  // --- rewrite_memory.cpp: linear addresses and their translation
  struct Access {
    unsigned bytes;
    bool write;
    bool aligned;  ///< cannot cross a page (alignment is checked by the instruction itself, or known)
  };
  /// The linear address of the memory operand in a register: a guest register's host if it is just that, else r12. Uses
  /// r12, r13.
  std::uint8_t address(const x86::Instruction& i);
  bool constantAddress(const x86::Instruction& i, std::uint64_t& value) const;
  /// Code that translates the address in `a` and gives the host operand for it. Uses r13; keeps flags if they are live.
  /// `a` must be r12 or a guest register that stays unchanged until the operand is used.
  Mem probe(std::uint8_t a, const Access& access);
  void lookUp(std::uint8_t entry, std::uint8_t a);
  void missPath(std::uint8_t entry, std::uint8_t a, bool write, std::uint64_t retry, RecordKind kind);
  bool usesAlignment(std::uint32_t bytes) const;
  std::uint32_t crossingTest(std::uint8_t a, std::uint32_t bytes);
  void exactCrossingTest(std::uint8_t a, std::uint32_t bytes);
  void interpretIfCrossing(std::uint8_t a, std::uint32_t bytes);
  std::uint8_t leaderAddress(const GroupPlan::Leader& leader);
  void groupProbe(const GroupPlan::Leader& leader);
  /// The host operand of the instruction's memory operand, or of a word on the stack at RSP + displacement.
  Mem operand(const x86::Instruction& i);
  Mem stackOperand(std::int32_t displacement, bool write);
  std::uint8_t segmentAddress(const x86::Instruction& i, Mem m);
  void guardSegment(const x86::Instruction& i);
  /// A scratch register for an operand beside memory operand `m` (which may change, at the cost of a LEA).
  std::uint8_t spareBeside(Mem& m);
  bool groupActive() const { return loop_ || groups_.active[index_]; }
  /// Bytes of a stack slot and a branch target.
  unsigned word() const { return key().wordBytes(); }
  bool userTable() const { return !key().has(ModeKey::kernelTable); }
  ModeKey key() const { return block_.key; }

  // --- rewrite_generic.cpp: same opcode, other registers
  bool generic(const GuestInstruction& g);
  bool shortIncrement(const GuestInstruction& g);
  bool zeroVectors(const GuestInstruction& g);
  bool genericRegisters(const GuestInstruction& g);
  bool genericMemory(const GuestInstruction& g);
  bool highByteMemory(const GuestInstruction& g, Mem operand);
  bool flipOperands(const GuestInstruction& g);
  void reencode(const RegMem& rm, std::uint8_t reg, std::uint8_t vvvv);
  void reencodeOp(std::uint8_t opcode, const RegMem& rm, std::uint8_t reg);
  void verbatim() { hot_.bytes(current_->bytes, current_->decoded.length); }

  // --- rewrite_move.cpp
  bool move(const GuestInstruction& g);
  bool moveRegisters(std::uint8_t to, std::uint8_t from, unsigned width);
  bool moveImmediate(std::uint8_t to, std::uint64_t value, unsigned width);
  bool moveOffset(const GuestInstruction& g);
  bool loadAddress(const GuestInstruction& g);
  bool exchange(const GuestInstruction& g);
  bool byteSwap(const GuestInstruction& g);

  // --- rewrite_stack.cpp
  bool push(const GuestInstruction& g);
  bool pop(const GuestInstruction& g);
  bool leave();
  void finishPush();
  void storeWord(Mem to, std::uint64_t value);
  void moveStackPointer(std::int32_t bytes) { moveStackPointer(hot_, bytes); }
  void moveStackPointer(Assembler& a, std::int32_t bytes);

  // --- rewrite_branch.cpp
  bool branch(const GuestInstruction& g);
  bool conditional(const GuestInstruction& g);
  bool countedBranch(const GuestInstruction& g);
  bool call(const GuestInstruction& g);
  bool indirect(const GuestInstruction& g);
  bool ret(const GuestInstruction& g);
  void jumpTo(std::uint64_t target);
  void branchToOtherPage(Condition cc, std::uint64_t target);
  bool targetsAreMapped() const;
  void lookUpTarget(Assembler& a) { lookUpTarget(a, key().mode()); }
  void lookUpTarget(Assembler& a, ExecMode mode, bool notes = false);
  Mem codeMapWord(std::uint8_t index, ExecMode mode) const;
  void jumpToTarget(Assembler& a);
  bool notesPages() const { return host_.sharing && key().has(ModeKey::user); }
  void notePage(Assembler& a, std::uint8_t scratch = host::address);
  void checkNextPage(const GuestInstruction& g);
  bool notesReturn(const GuestInstruction& g) const;
  void noteReturn(std::uint8_t from);
  void resolveReturn();
  Mem returnSlot(bool host) const;
  std::int32_t returnMask() const { return word() == 8 ? FRAME_RETURN_MASK64 : FRAME_RETURN_MASK32; }
  bool usesReturns() const { return host_.bmi2 && host_.returns && targetsAreMapped(); }
  void jumpByLink(unsigned targetOffset);
  std::uint64_t linkStub(unsigned targetOffset);
  void addLink(std::uint64_t rel32, std::uint64_t stub, unsigned targetOffset, bool ungrouped = false,
               std::uint32_t key = 0);
  void resolveForward(unsigned index);

  // --- rewrite_loop.cpp
  void emitLoops();
  void emitLoop(const LoopPlan::Loop& loop);
  void prepareStream(const LoopPlan::Stream& s, std::uint8_t r, std::uint64_t head);
  void leaveLoop(Condition cc, std::uint64_t target);
  Mem loopOperand(const x86::Instruction& i);
  void branchBack(std::uint32_t rel32, unsigned head);

  // --- rewrite_string.cpp
  bool repeatedString(const GuestInstruction& g);
  bool singleString(const GuestInstruction& g);
  void goesUp(std::uint64_t slow);
  void probeElement(std::uint8_t entry, std::uint8_t pointer, const Access& access, RecordKind kind);
  void staysInPage(std::uint8_t pointer, unsigned bytes, std::uint64_t slow);
  void moveBack(std::uint8_t pointer, std::uint8_t entry);

  // --- rewrite_system.cpp
  bool system(const GuestInstruction& g);
  bool pushFlags(const GuestInstruction& g);
  bool popFlags(const GuestInstruction& g);
  bool changeFlag(std::int32_t flag, bool value);
  bool enableInterrupts(const GuestInstruction& g);
  bool changeAccessCheck(const GuestInstruction& g);
  bool swapGs();
  bool readTimeStamp(const GuestInstruction& g);
  bool bitString(const GuestInstruction& g);
  bool readSelector(const GuestInstruction& g);
  bool accessSegmentBase(const GuestInstruction& g);
  bool systemCall(const GuestInstruction& g);
  void callStep(Assembler& a, const GuestInstruction& g);
  void restoreFlagsCold();

  const Block& block_;
  const GroupPlan& groups_;
  const LoopPlan& loops_;
  Assembler& hot_;
  Assembler& cold_;
  const Thunks& thunks_;
  const HostFeatures& host_;
  RewrittenCode& out_;

  const GuestInstruction* current_ = nullptr;
  unsigned index_ = 0;
  unsigned count_ = 0;                                          ///< instructions that will be translated
  std::array<std::uint64_t, Block::kMaxInstructions> entry_{};  ///< host address of each instruction so far
  struct Forward {
    std::uint32_t rel32;
    unsigned index;
  };
  std::array<Forward, Block::kMaxInstructions> forward_;  ///< jumps to instructions of this block that come later
  unsigned forwardCount_ = 0;
  std::uint32_t returnPoint_ = 0;         ///< where the host address of the next instruction goes, if a call wants it
  const LoopPlan::Loop* loop_ = nullptr;  ///< whose copy without probes is being written
  bool loopFailed_ = false;               ///< it needs what is not to be had there
  std::array<std::uint32_t, LoopPlan::kMaxLoops> backEdge_{};  ///< the rel32 of each loop's branch to its head
};

}  // namespace lodge::translate
