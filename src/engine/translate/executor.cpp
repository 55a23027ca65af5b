// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/executor.h"

#include <sched.h>
#include <x86intrin.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/bytes.h"
#include "engine/translate/vcpu_context.h"
#include "x86/cpu_model.h"
#include "x86/vector_state.h"
#include "x86/virtual_memory.h"

namespace lodge::translate {

using namespace x86;

namespace {
constexpr std::uint64_t kHardwareFlags = flag::arithmetic | flag::df;
/// What user code can change of the flags, while it runs as it is.
constexpr std::uint64_t kNativeFlags = kHardwareFlags | flag::tf | flag::nt | flag::ac | flag::id;
constexpr std::uint8_t kMostPartial = 8;
constexpr std::uint64_t kNativeAhead = 16;  ///< pages of code that are shown together
/// Of an XSAVE area: where the x87 pointers lie, which the executor's addresses must not be seen in.
constexpr unsigned kX87Opcode = 6, kX87Ip = 8, kX87Dp = 16;

/// What is looked for in the second table time and again comes into the first, sooner or later.
constexpr std::uint32_t kLooks = 2048;
constexpr unsigned kMostRefusals = 3;
/// Of a process: its tables, its stacks, and the kernel's page tables.
constexpr std::uint64_t kProcessBytes = 4_MiB;

/// Bytes of XSAVE's standard format for what is kept (CPUID.0DH).
unsigned vectorBytes() {
  static const unsigned bytes = [] {
    std::uint32_t eax = 13, ebx, ecx = 0, edx;
    asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    return ebx < 4096 ? ebx : 4096u;
  }();
  return bytes;
}
}  // namespace

std::unique_ptr<Executor> Executor::create(VcpuContext& context, ExecutorCounters& counters) {
  auto process = ExecutorProcess::start(context.cpu->memory->fd());
  if (!process) return nullptr;
  auto executor = std::unique_ptr<Executor>(new Executor(context, counters, std::move(process)));
  if (!executor->memory_.isValid()) return nullptr;
  ++counters.started;
  return executor;
}

Executor::Executor(VcpuContext& context, ExecutorCounters& counters, std::unique_ptr<ExecutorProcess> process)
    : context_(context),
      counters_(counters),
      process_(std::move(process)),
      code_(*process_, context.cpu->model->features, context.cpu->tscScale),
      memory_(*process_, *context.cpu->memory),
      block_(std::make_unique<Block>()) {
  context_.store->addFollower(*this);
}

Executor::~Executor() {
  context_.store->countFollowers(-static_cast<std::int64_t>(counted_));
  context_.store->removeFollower(*this);
}

// --- what others change

void Executor::pageGuarded(std::uint64_t ramPage) {
  if (!memory_.mayWrite(ramPage)) return;
  {
    std::scoped_lock lock(mutex_);
    guarded_.push_back(ramPage);
  }
  pending_.store(true, std::memory_order_seq_cst);
  // What it stores from now on must not go unnoticed. A run that begins later has seen `pending_`.
  std::uint64_t run = runs_.load(std::memory_order_seq_cst);
  if (!running_.load(std::memory_order_seq_cst) || context_.threadId == static_cast<int>(::gettid())) return;
  // Again from time to time: the signal may come just before the vCPU's thread begins to wait.
  constexpr unsigned kAgain = 1024;
  for (unsigned n = 0; running_.load(std::memory_order_seq_cst) && runs_.load(std::memory_order_seq_cst) == run; ++n) {
    if (n % kAgain == 0) context_.leave(context_);
    ::sched_yield();
  }
}

bool Executor::codeWritten(std::uint64_t ramPage, std::uint64_t granules) {
  bool any = false, kept = false;
  {
    std::scoped_lock lock(mutex_);
    auto [first, last] = codePagesOf_.equal_range(ramPage);
    for (auto at = first; at != last;) {
      auto found = codePages_.find(at->second);
      if (found == codePages_.end() || found->second.ramPage != ramPage) {
        at = codePagesOf_.erase(at);
        continue;
      }
      ++at;
      const auto& [linear, page] = *found;
      if ((page.granules & granules) == 0) {
        kept = kept || page.granules != 0;
        continue;
      }
      written_.push_back(linear);
      // Its first piece may be the end of an instruction of the page before.
      if ((page.granules & 1) != 0) written_.push_back(linear - kPageSize);
      any = true;
    }
  }
  if (!any) return kept;
  pending_.store(true, std::memory_order_seq_cst);
  if (running_.load(std::memory_order_seq_cst)) context_.leave(context_);
  return kept;
}

void Executor::addKeptPages(std::vector<bool>& pages) const {
  std::scoped_lock lock(mutex_);
  for (const auto& [linear, page] : codePages_) {
    if (page.granules != 0) pages[page.ramPage] = true;
  }
}

void Executor::forgetCode() {
  code_.clear();
  count();
  ++counters_.clears;
  std::scoped_lock lock(mutex_);
  codePages_.clear();
  codePagesOf_.clear();
}

/// What the process and its code take is the code cache's.
void Executor::count() {
  std::uint64_t now = kProcessBytes + code_.bytes() + memory_.bytes();
  context_.store->countFollowers(static_cast<std::int64_t>(now - counted_));
  counted_ = now;
}

void Executor::forgetAll() {
  memory_.dropAll();
  forgetCode();
  flushCount_ = 0;
  mustRevalidate_ = false;
  stale_.store(false, std::memory_order_seq_cst);
  remapped_ = false;
}

bool Executor::begin() {
  native_ = context_.executors->runsNatively() && mayRunNatively(*context_.cpu->model) && nativeFits();
  code_.setStepsX87(native_);
  staysTranslated_ = false;
  crossings_ = 0;
  crossedAt_ = process_->processorTime();
  return native_;
}

/// After the guest said that translations may have changed: code whose page is elsewhere now, or may not be executed
/// any more, goes. `all`: it may be any page; else those of flushes_.
void Executor::checkCode(bool all) {
  const Cpu& cpu = *context_.cpu;
  std::scoped_lock lock(mutex_);
  std::vector<std::uint64_t> gone;
  auto check = [&](std::uint64_t linear, const CodePage& page) {
    PageLook look{};
    bool same = lookAtPage(cpu, linear, look) && !look.noExecute && look.accessed && look.offset >> 12 == page.ramPage;
    if (!same) gone.push_back(linear);
  };
  if (all) {
    for (const auto& [linear, page] : codePages_) check(linear, page);
  } else {
    // A flush of any address in a large page is of all.
    constexpr unsigned kLargest = 30;
    auto isFlushed = [this](std::uint64_t linear) {
      return std::any_of(flushes_, flushes_ + flushCount_,
                         [&](std::uint64_t f) { return f >> kLargest == linear >> kLargest; });
    };
    for (const auto& [linear, page] : codePages_) {
      if (isFlushed(linear)) check(linear, page);
    }
  }
  // Nearly all of it: the program has ended.
  remapped_ = gone.size() > 2 && gone.size() > codePages_.size() / 2;
  for (std::uint64_t linear : gone) {
    written_.push_back(linear);
    written_.push_back(linear - kPageSize);  // its last instruction may go on there
    pending_.store(true, std::memory_order_relaxed);
  }
}

/// Whatever changed since guest code ran last.
void Executor::settle() {
  for (unsigned n = 0; n < flushCount_; ++n) memory_.dropPage(flushes_[n]);
  if (mustRevalidate_) {
    ++counters_.revalidations;
    memory_.revalidate(*context_.cpu);
  }
  if (mustRevalidate_ || flushCount_ != 0) checkCode(mustRevalidate_);
  mustRevalidate_ = false;
  flushCount_ = 0;
  if (remapped_) return;
  if (stale_.exchange(false, std::memory_order_seq_cst)) {
    if (native_) memory_.dropAll();  // pages of code are not watched any more
    forgetCode();
  }
  if (pending_.exchange(false, std::memory_order_seq_cst)) {
    std::vector<std::uint64_t> guarded, written;
    {
      std::scoped_lock lock(mutex_);
      guarded.swap(guarded_);
      written.swap(written_);
      for (std::uint64_t page : written) codePages_.erase(page);
    }
    for (std::uint64_t page : written) {
      code_.dropPage(page);
      if (native_) memory_.dropPage(page);
    }
    for (std::uint64_t ramPage : guarded) memory_.protect(ramPage);
  }
  memory_.settle();
}

// --- code

/// The bytes of a page of code, of which `granules` are watched from now on. Null: it cannot be executed; or, if nobody
/// has asked for it yet (`ahead`), it was not used before.
const std::uint8_t* Executor::codePage(std::uint64_t linear, CodeNote& note, bool ahead, std::uint64_t granules) {
  Cpu& cpu = *context_.cpu;
  if (linear >> 47 != 0) return nullptr;
  std::uint64_t offset = 0;
  if (ahead) {
    PageLook look{};
    if (!lookAtPage(cpu, linear, look) || look.noExecute || !look.accessed) return nullptr;
    offset = look.offset;
  } else {
    PageTranslation page;
    if (!x86::translate(cpu, linear, Access::execute, Privilege::current, page)) {
      cpu.exception.valid = false;
      return nullptr;
    }
    offset = cpu.offsetOf(Gpa{page.gpa & ~kPageMask});
    if (offset == GuestMemory::kNoOffset) return nullptr;
  }
  note.ramPage = offset >> 12;
  // First the note: who writes to the page, and finds that nobody has code of it, ends the watch.
  note.before = notePage(linear & ~kPageMask, note.ramPage, granules);
  if (!context_.store->guardCode(note.ramPage)) return nullptr;
  return reinterpret_cast<const std::uint8_t*>(cpu.memory->deviceView() + offset);
}

/// Host code for `rip`, translated if need be, with what it leads to; 0 where the interpreter must go on.
/// `isAfterStop`: it is not translated code that wants to go there.
std::uint64_t Executor::lookUp(std::uint64_t rip, bool isAfterStop) {
  bool mayBeNative = native_ && (isAfterStop || !staysTranslated_);
  if (mayBeNative && showCode(rip, false)) {
    if (code_.find(rip) == 0) code_.correctTarget(rip, rip);  // it may have been translated before
    return rip;
  }
  if (std::uint64_t host = code_.find(rip)) return enterFromNative(rip, host);
  WorkMark mark(*context_.cpu, Work::translation);
  std::uint64_t clears = counters_.clears;
  std::uint32_t link = code_.linkCount();
  std::uint64_t host = translate(rip, false);
  if (host == 0) return 0;
  ahead_ = code_.successors();
  std::size_t most = native_ ? kAheadOfNative : kAhead;
  for (std::size_t n = 0; n < ahead_.size() && n < most; ++n) {
    ExecutorCode::Successor next = ahead_[n];
    std::uint64_t code = code_.find(next.rip);
    if (code == 0) {
      if (!next.isReturn && !knows(next.rip)) continue;
      if (mayBeNative && showsCode(next.rip)) continue;
      code = translate(next.rip, true);
      if (clears != counters_.clears) return 0;
      if (code == 0) continue;
      ahead_.insert(ahead_.end(), code_.successors().begin(), code_.successors().end());
    }
    if (next.isReturn) code_.enterTarget(next.rip, code, false);
  }
  code_.followFrom(link);
  for (std::uint32_t n = link; mayBeNative && !staysTranslated_ && n < code_.linkCount(); ++n) {
    std::uint64_t target = code_.linkTarget(n), way = 0;
    if (code_.find(target) == 0 && showsCode(target)) way = code_.wayTo(target);
    if (way != 0) code_.follow(n, way);
  }
  count();
  return enterFromNative(rip, host);
}

/// Code that runs as it is finds the way to the code for `rip` without the machine from now on.
std::uint64_t Executor::enterFromNative(std::uint64_t rip, std::uint64_t host) {
  if (native_) code_.enterTarget(rip, host, false);
  return host;
}

/// Whether there is code of the page already.
bool Executor::knows(std::uint64_t rip) const {
  std::scoped_lock lock(mutex_);
  return codePages_.contains(rip & ~kPageMask);
}

/// Whether the guest's kernel lets its programs have what the host's lets this process have.
bool Executor::nativeFits() const {
  const CpuState& s = context_.cpu->state;
  constexpr std::uint64_t kCode = 0x33, kStack = 0x2b;  // as Linux has them
  constexpr std::uint64_t kNeeded = cr4::osfxsr | cr4::osxmmexcpt | cr4::osxsave | cr4::fsgsbase;
  return (s.cr0 & (cr0::ts | cr0::em)) == 0 && (s.cr4 & (kNeeded | cr4::pke | cr4::tsd)) == kNeeded &&
         s.xcr0 == context_.cpu->model->xcr0Supported && s.segment[cs].selector == kCode &&
         s.segment[ss].selector == kStack &&
         (s.segment[ds].selector | s.segment[es].selector | s.segment[fs].selector | s.segment[gs].selector) == 0;
}

/// Whether code of the page may run as it is.
bool Executor::isNative(std::uint64_t rip, bool ahead) {
  std::uint64_t page = rip & ~kPageMask;
  {
    std::scoped_lock lock(mutex_);
    auto found = codePages_.find(page);
    bool known = found != codePages_.end() && found->second.kind != CodePage::Kind::unknown;
    if (known && (ahead || found->second.partial % kMostPartial == 0))
      return found->second.kind == CodePage::Kind::native;
  }
  if (process_->covers(page)) return false;
  CodeNote note, nextNote;
  const std::uint8_t* bytes = codePage(page, note, ahead, ~std::uint64_t{0});
  if (!bytes) return false;
  // What is around it says how its bytes are read. The end of its last instruction is watched, too.
  auto peek = [this](std::uint64_t linear) {
    PageLook look{};
    bool there = linear >> 47 == 0 && lookAtPage(*context_.cpu, linear, look) && !look.noExecute;
    return there ? reinterpret_cast<const std::uint8_t*>(context_.cpu->memory->deviceView() + look.offset) : nullptr;
  };
  const std::uint8_t* next = codePage(page + kPageSize, nextNote, true, 1);
  if (!next) next = peek(page + kPageSize);
  const std::uint8_t* before = peek(page - kPageSize);
  bool native = context_.executors->verdicts().runsAsItIs(before, bytes, next, hostsTime_);
  ++(native ? counters_.nativePages : counters_.translatedPages);
  std::scoped_lock lock(mutex_);
  CodePage& there = codePages_[page];
  there.kind = native ? CodePage::Kind::native : CodePage::Kind::translated;
  there.partial = native || (before && next) ? 0 : static_cast<std::uint8_t>(there.partial + 1);
  return native;
}

/// Whether code of the page is shown, or will be when guest code runs next, and may run as it is.
bool Executor::showCode(std::uint64_t rip, bool ahead) {
  if (!isNative(rip, ahead)) return false;
  std::uint64_t page = rip & ~kPageMask;
  if (memory_.isExecutable(page)) return true;
  std::uint64_t ramPage = 0;
  {
    std::scoped_lock lock(mutex_);
    ramPage = codePages_[page].ramPage;
  }
  if (!memory_.fillCode(*context_.cpu, page, ramPage << 12)) return false;
  if (ahead) return true;
  constexpr std::uint64_t kTable = 2_MiB;
  for (std::uint64_t n = 1; n < kNativeAhead; ++n) {
    std::uint64_t more = page + n * kPageSize;
    if ((more & (kTable - 1)) == 0) break;
    if (!memory_.isExecutable(more)) showCode(more, true);
  }
  return true;
}

/// Whether code at `rip` runs as it is.
bool Executor::showsCode(std::uint64_t rip) {
  std::scoped_lock lock(mutex_);
  auto found = codePages_.find(rip & ~kPageMask);
  return found != codePages_.end() && found->second.kind == CodePage::Kind::native;
}

std::uint64_t Executor::translate(std::uint64_t rip, bool ahead) {
  std::uint64_t page = rip & ~kPageMask;
  CodeNote note, nextNote;
  // Whatever is written to the page while it is read matters.
  const std::uint8_t* bytes = codePage(rip, note, ahead, ~std::uint64_t{0});
  if (!bytes) return 0;
  constexpr unsigned kNearEnd = kPageSize - Block::kMaxInstructions * kMaxInstructionLength;
  const std::uint8_t* next = (rip & kPageMask) > kNearEnd ? codePage(page + kPageSize, nextNote, true, 1) : nullptr;
  std::uint64_t host = 0;
  if (context_.store->makeRoomForFollowers()) host = code_.translate(*block_, rip, ModeKey{key_}, bytes, next);
  if (host == 0) {  // full; if that is soon again, this program is too large
    constexpr std::uint64_t kSoon = 3'000'000'000;
    std::uint64_t now = process_->processorTime();
    if (now - std::exchange(fullAt_, now) < kSoon) refusals_ = kMostRefusals + 1;
    memory_.dropAll();
    forgetCode();
    return 0;
  }
  ++counters_.translations;
  std::scoped_lock lock(mutex_);
  // If it was written to meanwhile, the note says so.
  codePages_[page].granules = note.before | block_->dependsOn;
  return host;
}

/// Adds pieces of a page to those that code is of. Returns which there were before.
std::uint64_t Executor::notePage(std::uint64_t linear, std::uint64_t ramPage, std::uint64_t granules) {
  std::scoped_lock lock(mutex_);
  CodePage& page = codePages_[linear];
  std::uint64_t before = page.granules;
  if (before == 0 || page.ramPage != ramPage) {
    auto [first, last] = codePagesOf_.equal_range(ramPage);
    bool there = std::any_of(first, last, [linear](const auto& pair) { return pair.second == linear; });
    if (!there) codePagesOf_.emplace(ramPage, linear);
  }
  page.ramPage = ramPage;
  page.granules |= granules;
  return before;
}

// --- running

void Executor::enter(std::uint64_t host) {
  const CpuState& s = context_.cpu->state;
  ExecutorState& e = process_->state();
  std::memcpy(e.gpr, s.gpr, sizeof e.gpr);
  e.hostPc = host;
  e.flags = (s.rflags & (native_ ? kNativeFlags : kHardwareFlags)) | flag::if_ | flag::reserved1;
  e.fsBase = s.segment[fs].base;
  e.gsBase = s.segment[gs].base;
  e.tscOffset = s.tscOffset;
  e.tscAux = static_cast<std::uint32_t>(s.tscAux);
  std::memcpy(e.xsave, s.xsave, vectorBytes());
  sanitizeVectorState(e.xsave);
}

/// Where code that runs as it is and code that does not call each other all the time, what is called from translated
/// code is translated, too, from then on: only what begins after a stop runs as it is.
void Executor::countCrossings() {
  constexpr std::uint64_t kLooked = 4096;                 // crossings
  constexpr std::uint64_t kCrossing = 2'000, kShare = 4;  // nanoseconds of each; of the time, at most
  std::uint64_t now = std::exchange(process_->state().crossings, 0);
  counters_.crossings += now;
  crossings_ += now;
  crossedSince_ += now;
  if (staysTranslated_ || crossings_ < kLooked) return;
  std::uint64_t time = process_->processorTime(), used = time - crossedAt_;
  if (std::exchange(crossings_, 0) * kCrossing * kShare > used) {
    staysTranslated_ = true;
    stale_.store(true, std::memory_order_seq_cst);
  }
  crossedAt_ = time;
}

/// Lets guest code run. False: the process died.
bool Executor::resume() {
  ExecutorState& e = process_->state();
  e.flags &= ~flag::tf;
  e.looks = kLooks;
  e.kicked = 0;
  ExecutorSeat& seat = context_.executors->seat();
  if (seat.take(::sched_getcpu(), __rdtsc())) ++counters_.moves;
  process_->follow();
  ++counters_.stops;
  runs_.fetch_add(1, std::memory_order_seq_cst);
  running_.store(true, std::memory_order_seq_cst);
  // A page that is guarded from here on is noticed by who guards it.
  bool ready = context_.frame->attention == 0 && !stale_.load(std::memory_order_seq_cst) &&
               !pending_.load(std::memory_order_seq_cst);
  bool lives = true;
  if (ready) {
    e.reason = EXECUTOR_REASON_ABORTED;  // until it says otherwise
    lives = process_->run(context_.frame->attention);
    countCrossings();
    // New code is an investment.
    if (e.reason != EXECUTOR_REASON_LINK && e.reason != EXECUTOR_REASON_INDIRECT) ++stops_;
  } else {
    e.reason = EXECUTOR_REASON_ABORTED;
  }
  running_.store(false, std::memory_order_seq_cst);
  seat.leave(__rdtsc());
  return lives;
}

void Executor::takeRegisters() {
  CpuState& s = context_.cpu->state;
  const ExecutorState& e = process_->state();
  std::memcpy(s.gpr, e.gpr, sizeof s.gpr);
  std::uint64_t flags = (native_ ? kNativeFlags : kHardwareFlags) & ~(stepping_ ? flag::tf : 0);
  s.rflags = (s.rflags & ~flags) | (e.flags & flags);
  s.segment[fs].base = e.fsBase;
  s.segment[gs].base = e.gsBase;
  std::uint16_t opcode = loadLe<std::uint16_t>(s.xsave + kX87Opcode);
  std::uint64_t ip = loadLe<std::uint64_t>(s.xsave + kX87Ip), dp = loadLe<std::uint64_t>(s.xsave + kX87Dp);
  std::memcpy(s.xsave, e.xsave, vectorBytes());
  if (!native_) {  // translated x87 instructions noted where the host has them
    storeLe(s.xsave + kX87Opcode, opcode);
    storeLe(s.xsave + kX87Ip, ip);
    storeLe(s.xsave + kX87Dp, dp);
  }
  sanitizeVectorState(s.xsave);
}

Executor::End Executor::run() {
  Cpu& cpu = *context_.cpu;
  for (;;) {
    cpu.parkFpu();
    if (context_.frame->attention != 0 || context_.store->needsReset() || cpu.state.activity != Activity::running ||
        cpu.events.load(std::memory_order_relaxed) != 0)
      return End::done;
    if (cpu.state.cpl != 3) return End::done;
    if ((cpu.state.dr[7] & 0xff) == 0) cpu.state.rflags &= ~flag::rf;
    ModeKey key = context_.modeNow();
    if (!key.has(ModeKey::translatable) || key.mode() != ExecMode::user64 || key.has(ModeKey::accessCheck))
      return End::unsuited;
    if (cpu.state.interruptShadow != 0 || key.has(ModeKey::portIo)) return End::unsuited;
    if (native_ && !nativeFits()) return End::unsuited;
    // The guest may set its counter: code that reads the host's must not go on as it is.
    bool hostsTime = cpu.state.tscOffset == 0 && cpu.tscScale.isIdentity();
    if (key.bits != key_ || (native_ && hostsTime != hostsTime_)) {
      key_ = key.bits;
      hostsTime_ = hostsTime;
      stale_.store(true, std::memory_order_seq_cst);
    }
    settle();
    if (remapped_) return End::remapped;
    if (refusals_ > kMostRefusals) {
      refusals_ = 0;
      return End::refused;
    }
    if (goOnAfterRead()) continue;
    std::uint64_t host = lookUp(cpu.state.rip, true);
    if (refusals_ > kMostRefusals) continue;
    fillAfterFault();
    if (host == 0) {
      step();
      continue;
    }
    enter(host);
    for (Stop next = Stop::goOn; next == Stop::goOn;) {
      if (!resume()) return process_->hasAnswered() ? End::dead : End::gone;
      if (process_->state().failed != 0) {
        process_->state().failed = 0;
        memory_.dropAll();
        ++refusals_;
      }
      if (process_->state().reason == EXECUTOR_REASON_ABORTED) break;  // as it was
      takeRegisters();
      next = handleStop();
      if (next == Stop::dead) return End::dead;
      if (native_ && !nativeFits()) next = Stop::leave;  // segment registers, which a return would lose
    }
  }
}

bool Executor::isWorthIt() {
  // Nanoseconds from one stop to the next, what the process itself does about it included: half of that, and more of a
  // fault, as it maps the page. What else of its time would be twice and a half in the vCPU's own translated code.
  constexpr std::uint64_t kNative = 10'000, kNativeFault = 16'500, kCrossing = 2'500, kTranslated = 40'000;
  std::uint64_t now = process_->processorTime(), used = now - lookedAt_, stops = std::exchange(stops_, 0);
  lookedAt_ = now;
  std::uint64_t crossed = std::exchange(crossedSince_, 0), faults = std::exchange(faults_, 0);
  faultedMost_ = faults > stops / 2;
  if (!native_) return used > stops * kTranslated;
  return used > stops * kNative + faults * (kNativeFault - kNative) + crossed * kCrossing;
}

}  // namespace lodge::translate
