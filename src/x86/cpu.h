// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>

#include "base/units.h"
#include "memory/guest_memory.h"
#include "x86/local_apic.h"
#include "x86/state.h"
#include "x86/tsc_scale.h"

namespace lodge::interpret {
struct Context;
}

namespace lodge::x86 {

struct CpuModel;  // cpu_model.h

/// Reasons for a vCPU to leave straight execution, as bits of Cpu::events. Set by any thread with Cpu::raise().
namespace event {
inline constexpr std::uint32_t
    interrupt = 1 << 0,  ///< the local APIC may have something to deliver (re-evaluated by LocalApic::pending)
    nmi = 1 << 1, init = 1 << 2,
    sipi = 1 << 3,  ///< with Cpu::sipiVector
    smi = 1 << 4,
    stop = 1 << 5,      ///< Vcpu::run() returns VcpuExit::stopped as soon as the state is precise
    flushTlb = 1 << 6,  ///< asked by another vCPU (paravirtual flush) or by the machine
    quiesce = 1 << 7,   ///< the engine's own: all vCPUs pass a safe point (code cache reclaim)
    unhalt = 1 << 8;    ///< KVM_HC_KICK_CPU: ends HLT, also with IF = 0; remembered until the next HLT
}

/// The world around one vCPU: ports, memory-mapped devices, its APIC, paravirtual services. Implemented by the machine.
/// Called on the vCPU's thread with guest vector state parked (Cpu::parkFpu) and CpuState precise.
class CpuEnvironment {
 public:
  virtual ~CpuEnvironment() = default;
  virtual std::uint64_t readPort(std::uint16_t port, unsigned size) = 0;
  virtual void writePort(std::uint16_t port, unsigned size, std::uint64_t value) = 0;
  virtual std::uint64_t readMmio(Gpa gpa, unsigned size) = 0;
  virtual void writeMmio(Gpa gpa, unsigned size, std::uint64_t value) = 0;
  /// The same where devices answer while guest vector state is live (IoDevice::readLive()): these four are called
  /// without it being parked. False: nothing was done, and one of the four above must be called.
  virtual bool readPortLive(std::uint16_t, unsigned, std::uint64_t&) { return false; }
  virtual bool writePortLive(std::uint16_t, unsigned, std::uint64_t) { return false; }
  virtual bool readMmioLive(Gpa, unsigned, std::uint64_t&) { return false; }
  virtual bool writeMmioLive(Gpa, unsigned, std::uint64_t) { return false; }
  virtual LocalApic& apic() = 0;
  /// KVM_HC_SEND_IPI and KVM_HC_KICK_CPU (Linux virt/kvm/x86/hypercalls.rst); returns the hypercall's result.
  /// A kick raises event::unhalt on the CPU whose APIC id is arguments[1].
  virtual std::int64_t hypercall(std::uint64_t number, const std::uint64_t (&arguments)[4]) = 0;
  /// Guest time in nanoseconds (for kvmclock): monotonic, from the machine's clock; and the wall clock at its zero.
  virtual Nanoseconds guestTime() = 0;
  virtual Nanoseconds wallClockBase() = 0;
};

/// Told of every change that makes cached address translations or decoded code stale; implemented by engines that keep
/// such caches beyond Cpu's own TLB. Called on the vCPU's thread.
class TranslationCacheListener {
 public:
  virtual ~TranslationCacheListener() = default;
  virtual void flushPage(std::uint64_t linear) = 0;  ///< INVLPG: this page, all PCIDs' globals included
  virtual void flushAll(bool globalToo) = 0;         ///< current address space; with or without global pages
  virtual void flushPcid(std::uint16_t pcid) = 0;    ///< INVPCID type 1
  virtual void flushPcidPage(std::uint16_t pcid, std::uint64_t linear) = 0;
  virtual void flushEverything() = 0;  ///< every PCID, globals too (CR4.PCIDE change, INVPCID type 2...)
  virtual void addressSpaceChanged(bool noFlush) = 0;  ///< CR3 was loaded
  virtual void modeChanged() = 0;  ///< CPL, CS, CR0, CR4, EFER, or AC changed in a way that affects caches
};

/// A fault or trap that an instruction raised, not delivered yet.
struct PendingException {
  std::uint8_t vector;
  bool hasErrorCode;
  bool valid;
  bool softwareInterrupt;  ///< INT n / INT3 / INTO: DPL is checked, no EXT bit
  std::uint32_t errorCode;
  std::uint64_t address;      ///< CR2 for page faults
  std::uint64_t debugStatus;  ///< DR6 bits for #DB
};

/// One entry of Cpu's own small TLB, used by the interpreter and by slow paths. Direct-mapped by page number.
/// Looked up and filled by x86/tlb.h.
struct TlbEntry {
  /// Linear page address | Rights that it was checked for; all ones: empty.
  std::uint64_t readTag = ~std::uint64_t{0}, writeTag = ~std::uint64_t{0}, fetchTag = ~std::uint64_t{0};
  std::byte* host = nullptr;  ///< the page in GuestMemory's CPU view
};

/// x87 last-instruction pointers (SDM vol. 1, 8.1.8). The host's own would name native routines and host addresses, so
/// they are kept here while vector state is live, and stored wherever the guest or a snapshot can see them. An engine
/// that runs x87 instructions without recording them leaves older values, never the host's.
struct X87Pointers {
  std::uint64_t ip, dp;
  std::uint16_t cs, ds, opcode;
};

/// What host code that is not the guest's own is at, for statistics of time.
enum class Work : std::uint8_t { other, translation, interpretation, device };

/// One vCPU: architectural state, its surroundings and what the engines share. Created by an engine (which may place it
/// next to its own tables); used only on its vCPU's thread but for raise() and `events`.
struct Cpu {
  CpuState state{};

  GuestMemory* memory = nullptr;
  CpuEnvironment* environment = nullptr;
  const CpuModel* model = nullptr;
  TranslationCacheListener* listener = nullptr;
  unsigned index = 0;  ///< vCPU number = initial APIC id

  std::atomic<std::uint32_t> events{0};
  std::atomic<std::uint8_t> sipiVector{0};
  /// Whether the thread sleeps in HLT (futex on `events`), and who wakes it otherwise (tgkill by the engine's kick).
  std::atomic<std::uint32_t> sleeping{0};

  /// Events that arrived while they were masked (IF, interrupt shadow, NMI blocking): moved here from `events`, so that
  /// an engine does not spin on them, and given back by rearmDeferredEvents() (x86/events.h) when the mask may have
  /// gone.
  std::uint32_t deferredEvents = 0;
  /// The guest's PV EOI flag was set at the last delivery: its next EOI may be the flag's clearing.
  bool paravirtEoiArmed = false;

  PendingException exception{};
  /// True while guest vector/x87 registers are live in the host's registers (only on the vCPU's thread, inside run()).
  bool fpuLive = false;
  std::uint64_t hostMxcsr = 0;
  X87Pointers x87{};    ///< valid while fpuLive; else in state.xsave
  TscScale tscScale{};  ///< of the engine that runs it; set before it runs
  std::uint64_t instructionsInterpreted = 0;
  volatile Work work = Work::other;  ///< read by signal handlers on the vCPU's thread
  /// The interpreter's own memory for this vCPU (engine/interpret/interpreter.h, ContextOwner).
  interpret::Context* interpreter = nullptr;

  static constexpr unsigned kTlbEntries = 1024;
  TlbEntry tlb[kTlbEntries];
  /// A bit an entry: not empty; of a global page; cut out of a page larger than 4 KiB.
  std::uint64_t tlbUsed[kTlbEntries / 64] = {}, tlbGlobal[kTlbEntries / 64] = {}, tlbLarge[kTlbEntries / 64] = {};

  /// Makes sure that guest vector state is in state.xsave and that host code may use vector registers. Must precede
  /// every call to code that is not compiled with lodge_guest_registers (libc, devices). Cheap when already parked.
  void parkFpu();
  /// Loads guest vector state into the host's registers.
  void unparkFpu();

  /// Sets event bits and gets the vCPU's attention (kick or futex wake). Any thread.
  void raise(std::uint32_t bits);
  /// Engine's hook behind raise(): interrupts execution in the code cache or interpreter. Any thread.
  void (*kick)(Cpu& cpu) = nullptr;
  void* engineData = nullptr;

  /// Where in GuestMemory's file this CPU reads, or stores to, `gpa`; kNoOffset: not in memory. In system management
  /// mode its RAM is there, too.
  std::uint64_t offsetOf(Gpa gpa) const {
    std::uint64_t offset = memory->offsetOf(gpa);
    return offset == GuestMemory::kNoOffset && state.smm != 0 ? memory->smramOffsetOf(gpa) : offset;
  }
  std::uint64_t writableOffsetOf(Gpa gpa) const {
    std::uint64_t offset = memory->writableOffsetOf(gpa);
    return offset == GuestMemory::kNoOffset && state.smm != 0 ? memory->smramOffsetOf(gpa) : offset;
  }

  /// The guest's time stamp counter when the host's has the value `hostTsc`.
  std::uint64_t tscAt(std::uint64_t hostTsc) const { return tscScale(hostTsc) + state.tscOffset; }

  bool longMode() const { return (state.efer & efer::lma) != 0; }
  bool mode64() const { return longMode() && state.segment[cs].longMode(); }
  bool protectedMode() const { return (state.cr0 & cr0::pe) != 0; }
  bool virtual8086() const { return (state.rflags & flag::vm) != 0; }
};

/// Sets Cpu::work while it lives.
class WorkMark {
 public:
  WorkMark(Cpu& cpu, Work work) : cpu_(cpu), before_(cpu.work) { cpu.work = work; }
  ~WorkMark() { cpu_.work = before_; }
  WorkMark(const WorkMark&) = delete;
  WorkMark& operator=(const WorkMark&) = delete;

 private:
  Cpu& cpu_;
  Work before_;
};

}  // namespace lodge::x86
