// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/lockstep.h"

#include <sys/mman.h>
#include <sys/syscall.h>

#include <cstring>

#include "engine/interpret/interpreter.h"
#include "engine/translate/host_call.h"
#include "engine/translate/lockstep_compare.h"
#include "engine/translate/signals.h"
#include "engine/translate/vcpu_context.h"
#include "x86/virtual_memory.h"

namespace lodge::translate {

using namespace x86;

namespace {
constexpr std::uint64_t kArithmetic = flag::arithmetic;
}

Result<std::unique_ptr<Lockstep>> Lockstep::create(VcpuContext& context, unsigned cpus) {
  if (cpus != 1)
    return Error(ErrorKind::unsupported, "--trace lockstep: a machine with several CPUs").withHint("give it one CPU");
  if (!context.store->guard().usesUserfaultfd()) {
    return Error(ErrorKind::unsupported, "--trace lockstep: the host has no userfaultfd")
        .withHint("'lodge doctor' tells why");
  }
  auto lockstep = std::unique_ptr<Lockstep>(new Lockstep(context));
  GuestMemory& memory = *context.cpu->memory;
  void* copies = ::mmap(nullptr, kPages * 2 * kPageSize, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (copies == MAP_FAILED || ::mprotect(memory.cpuRw(), memory.backingSize(), PROT_READ) != 0)
    return Error::fromErrno(errno, "--trace lockstep: protect guest memory");
  lockstep->copies_ = static_cast<std::byte*>(copies);
  for (unsigned n = 0; n < kPages; ++n) {
    lockstep->pages_[n].before = lockstep->copies_ + n * 2 * kPageSize;
    lockstep->pages_[n].after = lockstep->pages_[n].before + kPageSize;
  }
  lockstep->isOpen_.resize(memory.backingSize() >> 12);
  lockstep->open_.reserve(memory.backingSize() >> 12);
  return lockstep;
}

Lockstep::~Lockstep() {
  if (copies_) ::munmap(copies_, kPages * 2 * kPageSize);
  GuestMemory& memory = *context_.cpu->memory;
  ::mprotect(memory.cpuRw(), memory.backingSize(), PROT_READ | PROT_WRITE);
}

/// Where the check itself writes: the page is not protected there.
std::byte* Lockstep::ram(std::uint64_t ramPage) const {
  return context_.cpu->memory->deviceView() + (ramPage << 12);
}

void Lockstep::protect(std::uint64_t ramPage, bool on) const {
  hostCall(SYS_mprotect, reinterpret_cast<std::uint64_t>(context_.cpu->memory->cpuRw() + (ramPage << 12)), kPageSize,
           static_cast<std::uint64_t>(on ? PROT_READ : PROT_READ | PROT_WRITE));
}

bool Lockstep::openPage(std::uint64_t address) {
  const GuestMemory& memory = *context_.cpu->memory;
  std::uint64_t offset = address - reinterpret_cast<std::uint64_t>(memory.cpuRw());
  if (offset >= memory.backingSize() || isOpen_[offset >> 12] != 0) return false;
  std::uint64_t ramPage = offset >> 12;
  if (recording_ && pageCount_ < kPages) {
    Page& page = pages_[pageCount_++];
    page.ramPage = ramPage;
    std::memcpy(page.before, ram(ramPage), kPageSize);
    if (pageCount_ == kManyPages) kickThread(context_);
  } else if (recording_) {
    lost_ = true;
  }
  isOpen_[ramPage] = 1;
  open_.push_back(static_cast<std::uint32_t>(ramPage));
  protect(ramPage, false);
  return true;
}

void Lockstep::begin() {
  Cpu& cpu = *context_.cpu;
  cpu.parkFpu();
  for (std::uint32_t ramPage : open_) {
    protect(ramPage, true);
    isOpen_[ramPage] = 0;
  }
  open_.clear();
  pageCount_ = 0;
  lost_ = false;
  before_ = cpu.state;
  recording_ = true;
}

/// Memory and state as they were before translated code ran.
void Lockstep::rewind() {
  Cpu& cpu = *context_.cpu;
  after_ = cpu.state;
  pagesOfTranslator_ = pageCount_;
  for (unsigned n = 0; n < pageCount_; ++n) {
    std::memcpy(pages_[n].after, ram(pages_[n].ramPage), kPageSize);
    std::memcpy(ram(pages_[n].ramPage), pages_[n].before, kPageSize);
  }
  cpu.state = before_;
}

bool Lockstep::sameMemory(std::uint64_t& address) const {
  for (unsigned n = 0; n < pageCount_; ++n) {
    const Page& page = pages_[n];
    const std::byte* wanted = n < pagesOfTranslator_ ? page.after : page.before;
    if (std::memcmp(wanted, ram(page.ramPage), kPageSize) == 0) continue;
    std::uint64_t offset = differenceInPage(wanted, ram(page.ramPage));
    if (offset == kPageSize) continue;
    address = raw(context_.cpu->memory->gpaOf(page.ramPage << 12)) + offset;
    return false;
  }
  return true;
}

/// What the replay must not reach: devices, and the translator's tables.
class Lockstep::Silence final : public CpuEnvironment {
 public:
  explicit Silence(Cpu& cpu) : cpu_(cpu), environment_(cpu.environment), listener_(cpu.listener) {
    cpu.environment = this;
    cpu.listener = nullptr;
  }
  ~Silence() override {
    cpu_.environment = environment_;
    cpu_.listener = listener_;
  }
  bool broken() const { return broken_; }
  std::uint64_t readPort(std::uint16_t, unsigned) override { return spoil(); }
  void writePort(std::uint16_t, unsigned, std::uint64_t) override { spoil(); }
  std::uint64_t readMmio(Gpa, unsigned) override { return spoil(); }
  void writeMmio(Gpa, unsigned, std::uint64_t) override { spoil(); }
  LocalApic& apic() override { return environment_->apic(); }
  std::int64_t hypercall(std::uint64_t, const std::uint64_t (&)[4]) override {
    spoil();
    return 0;
  }
  Nanoseconds guestTime() override { return environment_->guestTime(); }
  Nanoseconds wallClockBase() override { return environment_->wallClockBase(); }

 private:
  std::uint64_t spoil() {
    broken_ = true;
    return 0;
  }
  Cpu& cpu_;
  CpuEnvironment* environment_;
  TranslationCacheListener* listener_;
  bool broken_ = false;
};

/// POPF tests what it has popped before it leaves the unusual to the interpreter; the arithmetic flags are lost then,
/// and will be loaded.
bool Lockstep::isBeforePopf() const {
  std::uint8_t bytes[kMaxInstructionLength];
  Instruction i{};
  Cpu& cpu = *context_.cpu;
  unsigned count = fetchInstruction(cpu, bytes);
  cpu.exception.valid = false;
  return count != 0 &&
         decode(bytes, count, cpu.mode64() ? CodeSize::bits64 : CodeSize::bits32, i) == DecodeStatus::ok &&
         i.info->op == Op::popf;
}

bool Lockstep::replay(std::uint64_t limit) {
  Cpu& cpu = *context_.cpu;
  Silence silence(cpu);
  nearest_.clear();
  nearestDifferences_ = ~0u;
  for (std::uint64_t n = 0;; ++n) {
    if (cpu.state.rip == after_.rip) {
      cpu.parkFpu();  // memcmp() uses vector registers
      bool same = std::memcmp(cpu.state.gpr, after_.gpr, sizeof after_.gpr) == 0;
      if (same || nearestDifferences_ != 0) {
        std::uint64_t address = 0;
        if (popsFlags_) cpu.state.rflags = (cpu.state.rflags & ~kArithmetic) | (after_.rflags & kArithmetic);
        StateDifference d = compareStates(cpu.state, after_, context_.frame->stiRip);
        if (d.count == 0 && sameMemory(address)) return true;
        if (d.count == 0) d.text = " memory at physical address " + hexText(address);
        if (d.count < nearestDifferences_) {
          nearestDifferences_ = d.count;
          nearest_ = "after " + std::to_string(n) + " instructions:" + d.text;
        }
      }
    }
    if (n == limit || lost_ || silence.broken() || cpu.state.activity != Activity::running) return false;
    interpret::step(cpu);
    ++instructions_;
    cpu.exception.valid = false;
  }
}

/// RAM as the translator left it, with all accessed and dirty bits.
void Lockstep::finish() {
  for (unsigned n = 0; n < pageCount_; ++n) {
    Page& page = pages_[n];
    std::byte* wanted = n < pagesOfTranslator_ ? page.after : page.before;
    if (std::memcmp(wanted, ram(page.ramPage), kPageSize) == 0) continue;
    addUsedBits(wanted, ram(page.ramPage));
    std::memcpy(ram(page.ramPage), wanted, kPageSize);
  }
  context_.cpu->state = after_;
  recording_ = false;
}

void Lockstep::check(ExitReason reason) {
  Cpu& cpu = *context_.cpu;
  cpu.parkFpu();
  std::uint32_t deferred = cpu.deferredEvents;
  popsFlags_ = isBeforePopf();
  rewind();
  past_[checks_++ % past_.size()] = {before_.rip, after_.rip, reason};
  bool same = replay(kLimit);
  cpu.parkFpu();
  cpu.deferredEvents = deferred;
  if (!same && ++divergences_ <= kMaxReports) report(reason);
  finish();
}

void Lockstep::report(ExitReason reason) {
  std::string text = "lockstep: translated code from " + hexText(before_.rip) + " to " + hexText(after_.rip) + " (" +
                     nameOf(reason) + ") did what the interpreter does not\n";
  text += "  nearest: " + (nearest_.empty() ? "the interpreter never gets there" : nearest_) + "\n";
  text += "  before:     " + describeState(before_) + "\n";
  text += "  translator: " + describeState(after_) + "\n";
  text += "  interpreter:" + describeState(context_.cpu->state) + "\n";
  text += "  exits before, the last first:";
  for (std::uint64_t n = 0; n < past_.size() && n < checks_; ++n) {
    const Past& past = past_[(checks_ - 1 - n) % past_.size()];
    text += " " + hexText(past.from) + ">" + hexText(past.to) + "(" + nameOf(past.reason) + ")";
  }
  text += "\n" + context_.store->describe(before_.rip);
  if (before_.rip != after_.rip) text += context_.store->describe(after_.rip);
  hostCall(SYS_write, 2, reinterpret_cast<std::uint64_t>(text.data()), text.size());
}

}  // namespace lodge::translate
