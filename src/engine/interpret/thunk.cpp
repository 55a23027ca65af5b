// SPDX-License-Identifier: Apache-2.0
#include "engine/interpret/thunk.h"

#include <initializer_list>

#include "engine/interpret/context.h"
#include "engine/interpret/thunk_registry.h"

namespace lodge::interpret {

using x86::Encoding;
using x86::Immediate;
using x86::Instruction;
namespace attribute = x86::attribute;
namespace memory_size = x86::memory_size;

namespace {

class Emitter {
 public:
  explicit Emitter(std::uint8_t* out) : out_(out) {}
  void byte(unsigned value) { out_[length_++] = static_cast<std::uint8_t>(value); }
  void bytes(std::initializer_list<unsigned> values) {
    for (unsigned v : values) byte(v);
  }
  unsigned length() const { return length_; }

 private:
  std::uint8_t* out_;
  unsigned length_ = 0;
};

/// FLDENV and FRSTOR of the 16-bit format. Stores always use the 32-bit one, which names the whole instruction pointer.
bool operandIsWord(const Instruction& i) {
  std::uint8_t size = i.info->memoryBytes;
  bool loads = (i.info->attributes & attribute::writesRm) == 0;
  return i.memory && i.operandSize == 2 && loads &&
         (size == memory_size::x87Environment || size == memory_size::x87State);
}

/// W outside 64-bit mode counts only where it is part of the opcode, not where it widens a general register.
bool canonicalW(const Instruction& i) {
  bool w = i.encoding != Encoding::legacy ? i.vexW : (i.rex & 8) != 0;
  bool general = (i.info->attributes & (attribute::regIsGpr | attribute::rmIsGpr)) != 0;
  // PCMPESTRM and PCMPESTRI take their lengths from EAX and EDX, or with W from RAX and RDX.
  general = general || (i.encoding != Encoding::evex && i.map == 3 && (i.opcode == 0x60 || i.opcode == 0x61));
  return w && (i.codeSize == x86::CodeSize::bits64 || !general);
}

struct Fields {
  unsigned reg, rm;  // with bits 3 and 4
};
Fields canonicalFields(const Instruction& i) {
  constexpr unsigned kRax = 0, kRdi = 7;
  Fields f{i.reg, i.rm};
  if (i.info->attributes & attribute::regIsGpr) f.reg = kRax;
  if (i.memory) {
    f.rm = kRdi;
  } else if (i.info->attributes & attribute::rmIsGpr) {
    f.rm = kRax;
  }
  return f;
}

void emitLegacy(Emitter& e, const Instruction& i, Fields f) {
  static constexpr std::uint8_t kMandatory[4] = {0, 0x66, 0xf3, 0xf2};
  if (i.vexPp != 0) e.byte(kMandatory[i.vexPp]);
  if (operandIsWord(i)) e.byte(0x66);
  unsigned rex = (canonicalW(i) ? 8u : 0) | (f.reg >> 3 << 2) | (f.rm >> 3);
  if (rex != 0 && i.hasModrm) e.byte(0x40 | rex);
  if (i.map > 0) e.byte(0x0f);
  if (i.map > 1) e.byte(i.map == 2 ? 0x38 : 0x3a);
  e.byte(i.opcode);
}

void emitVex(Emitter& e, const Instruction& i, Fields f) {
  bool usesB = i.hasModrm;
  e.byte(0xc4);
  e.byte((f.reg < 8 ? 0x80u : 0) | 0x40 | (f.rm < 8 || !usesB ? 0x20u : 0) | i.map);
  e.byte((canonicalW(i) ? 0x80u : 0) | (~i.vexV & 15u) << 3 | static_cast<unsigned>(i.vexL) << 2 | i.vexPp);
  e.byte(i.opcode);
}

void emitEvex(Emitter& e, const Instruction& i, Fields f) {
  e.byte(0x62);
  e.byte((f.reg & 8 ? 0 : 0x80u) | (f.rm & 16 ? 0 : 0x40u) | (f.rm & 8 ? 0 : 0x20u) | (f.reg & 16 ? 0 : 0x10u) | i.map);
  e.byte((canonicalW(i) ? 0x80u : 0) | (~i.vexV & 15u) << 3 | 4 | i.vexPp);
  e.byte((i.zeroing ? 0x80u : 0) | i.evexLength << 5 | (i.evexB ? 0x10u : 0) | (i.vexV & 16 ? 0 : 8u) | i.opmask);
  e.byte(i.opcode);
}

unsigned emitInstruction(std::uint8_t* out, const Instruction& i) {
  Emitter e(out);
  Fields f = canonicalFields(i);
  if (i.encoding == Encoding::vex) {
    emitVex(e, i, f);
  } else if (i.encoding == Encoding::evex) {
    emitEvex(e, i, f);
  } else {
    emitLegacy(e, i, f);
  }
  if (i.hasModrm) e.byte((i.memory ? 0u : 0xc0u) | (f.reg & 7) << 3 | (f.rm & 7));
  // Where the immediate's upper half names a register (VBLENDVPS and its kin), 32-bit code has eight of them.
  bool namesRegister = i.encoding == Encoding::vex && i.map == 3 && i.opcode >= 0x4a && i.opcode <= 0x4c;
  unsigned mask = namesRegister && i.codeSize != x86::CodeSize::bits64 ? 0x7f : 0xff;
  if (i.info->immediate == Immediate::byte) e.byte(static_cast<unsigned>(i.immediate) & mask);
  return e.length();
}

unsigned hashOf(const CanonicalBytes& key) {
  std::uint64_t halves[2];
  __builtin_memcpy(halves, key.bytes, 16);
  std::uint64_t h = (halves[0] ^ (halves[1] * 0x9e3779b97f4a7c15u)) * 0xff51afd7ed558ccdu;
  return static_cast<unsigned>(h >> 40);
}

/// x87 instructions that leave the last-instruction pointers: the control instructions (SDM vol. 1, 8.1.8).
bool isX87Control(const Instruction& i) {
  if (i.opcode == 0x9b) return true;  // FWAIT
  unsigned reg = i.reg & 7;
  if (i.memory) return (i.opcode == 0xd9 && reg >= 4) || (i.opcode == 0xdd && (reg == 4 || reg >= 6));
  return (i.opcode == 0xdb && reg == 4) || (i.opcode == 0xdf && reg == 4);
}

}  // namespace

CanonicalBytes canonicalForm(const Instruction& insn) {
  CanonicalBytes key{};
  key.bytes[15] = static_cast<std::uint8_t>(emitInstruction(key.bytes, insn));
  bool x87Image =
      insn.info->memoryBytes == memory_size::x87Environment || insn.info->memoryBytes == memory_size::x87State;
  if (x87Image) key.bytes[14] = insn.operandSize;  // stores have the same bytes for both formats
  return key;
}

namespace {

void describeGpr(Thunk& t, const Instruction& i) {
  std::uint32_t a = i.info->attributes;
  if (a & attribute::implicitGprs) {
    t.gpr = ThunkGpr::implicit;
    t.gprRead = true;
    t.gprWritten = (i.opcode & 1) != 0;  // PCMPxSTRI; PCMPxSTRM leave RCX
  } else if (a & attribute::regIsGpr) {
    t.gpr = ThunkGpr::reg;
    t.gprRead = true;
    t.gprWritten = (a & attribute::writesReg) != 0;
  } else if ((a & attribute::rmIsGpr) && !i.memory) {
    t.gpr = ThunkGpr::rm;
    t.gprRead = true;
    t.gprWritten = (a & attribute::writesRm) != 0;
  }
}

void describe(Thunk& t, const Instruction& i) {
  x86::MemoryOperand m = x86::memoryOperand(i);
  t.bytes = m.bytes;
  t.reads = m.read;
  t.writes = m.write;
  t.aligned = (i.info->attributes & attribute::alignedMemory) != 0;
  t.alignCopy = i.info->feature == x86::Feature::sha;
  t.usesFlags = (i.info->flagsRead | i.info->flagsWritten | i.info->flagsUndefined) != 0;
  describeGpr(t, i);
  // CVTPI2PS and CVTPI2PD of memory do not touch the MMX registers (so on AMD processors).
  bool convertsMemory = i.memory && i.map == 1 && i.opcode == 0x2a;
  t.waits = (i.info->attributes & attribute::mmx) != 0 && !convertsMemory;
  if ((i.info->attributes & attribute::x87) == 0) return;
  bool control = isX87Control(i);
  bool environment =
      i.memory && control &&
      (i.info->memoryBytes == memory_size::x87Environment || i.info->memoryBytes == memory_size::x87State);
  t.recordsPointers = !control;
  bool loads = i.memory && control && (m.read || i.opcode == 0x9b);
  t.waits = !control || loads;  // FLDENV, FLDCW and FRSTOR too
  t.bounce = environment && m.write;
  t.loadsPointers = environment && m.read;
  t.clearsPointers = i.opcode == 0xdb || (t.bounce && i.opcode == 0xdd);
  if (i.opcode == 0xdb) t.clearsPointers = control && !i.memory && (i.rm & 7) == 3;  // FNINIT
}

/// The routine: flags and registers in, the instruction, registers and flags out, 0 in RAX. The stack pointer at the
/// instruction is the one at entry, so that the fault exit can return from anywhere.
void emitThunk(std::uint8_t* out, const Thunk& t) {
  Emitter e(out);
  if (t.usesFlags) {
    e.bytes({0x49, 0x89, 0xd0});        // mov r8, rdx
    e.bytes({0x41, 0xff, 0x30, 0x9d});  // push qword [r8]; popfq
  }
  if (t.gpr != ThunkGpr::none) e.bytes({0x48, 0x8b, 0x06});            // mov rax, [rsi]
  if (t.gpr == ThunkGpr::implicit) e.bytes({0x48, 0x8b, 0x56, 0x08});  // mov rdx, [rsi+8]
  for (unsigned n = 0; n < t.key.bytes[15]; ++n) e.byte(t.key.bytes[n]);
  if (t.usesFlags) e.bytes({0x9c, 0x41, 0x8f, 0x00});                  // pushfq; pop qword [r8]
  if (t.gpr != ThunkGpr::none) e.bytes({0x48, 0x89, 0x06});            // mov [rsi], rax
  if (t.gpr == ThunkGpr::implicit) e.bytes({0x48, 0x89, 0x4e, 0x10});  // mov [rsi+16], rcx
  e.bytes({0x31, 0xc0, 0xc3});                                         // xor eax, eax; ret
}

}  // namespace

namespace {

/// What is executed was written through another linear address: that asks for a serializing instruction (SDM vol.
/// 3, 9.1.3). IRET to the next instruction is one, and a hundred times cheaper than CPUID on a virtualized host.
void serialize() {
  std::uint64_t scratch;
  asm volatile(
      "sub $128, %%rsp\n\t"  // the red zone
      "mov %%rsp, %0\n\t"
      "mov %%ss, %%ecx\n\t"
      "push %%rcx\n\t"
      "push %0\n\t"
      "pushfq\n\t"
      "mov %%cs, %%ecx\n\t"
      "push %%rcx\n\t"
      "lea 1f(%%rip), %%rcx\n\t"
      "push %%rcx\n\t"
      "iretq\n"
      "1:\n\t"
      "add $128, %%rsp"
      : "=&r"(scratch)
      :
      : "rcx", "cc", "memory");
}

}  // namespace

void ThunkCache::reset() {
  for (std::uint32_t i = 0; i <= owner_->cacheMask; ++i) owner_->cache[i].key = 0;
  used_ = kReserved;
  for (auto& b : buckets_) b = 0;
  // Slot 0, where the SIGFPE handler goes on: RAX holds the vector already.
  writable_[0] = std::byte{0xc3};
}

const Thunk* ThunkCache::find(const Instruction& insn) {
  CanonicalBytes key = canonicalForm(insn);
  constexpr unsigned mask = 2 * kSlots - 1;
  unsigned bucket = hashOf(key) & mask;
  for (; buckets_[bucket] != 0; bucket = (bucket + 1) & mask) {
    const Thunk& t = thunks_[buckets_[bucket] - 1];
    if (t.key == key) return &t;
  }
  return make(insn, key, bucket);
}

const Thunk* ThunkCache::make(const Instruction& insn, const CanonicalBytes& key, unsigned bucket) {
  if (used_ == kSlots) {
    reset();
    bucket = hashOf(key) & (2 * kSlots - 1);
  }
  unsigned number = used_++;
  Thunk& t = thunks_[number];
  t = Thunk{};
  t.key = key;
  describe(t, insn);
  emitThunk(reinterpret_cast<std::uint8_t*>(writable_ + number * kSlotBytes), t);
  t.entry = reinterpret_cast<ThunkEntry>(executable_ + number * kSlotBytes);
  buckets_[bucket] = static_cast<std::uint16_t>(number + 1);
  serialize();
  return &t;
}

}  // namespace lodge::interpret
