// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/translate/block.h"
#include "engine/translate/executor_code.h"
#include "engine/translate/executor_memory.h"
#include "engine/translate/executor_native.h"
#include "engine/translate/executor_process.h"
#include "engine/translate/executor_seats.h"
#include "engine/translate/kick_timer.h"
#include "engine/translate/translation_store.h"

namespace lodge::translate {

struct VcpuContext;

/// What executors of a vCPU did.
struct ExecutorCounters {
  std::uint64_t started = 0, lost = 0, promotions = 0, demotions = 0;
  std::uint64_t stops = 0, steps = 0, links = 0, indirect = 0, kicks = 0, fills = 0, faults = 0, singleSteps = 0;
  std::uint64_t translations = 0, clears = 0, revalidations = 0, nativePages = 0, translatedPages = 0, calls = 0,
                fetches = 0, crossings = 0, lingers = 0, pairs = 0, moves = 0;
  std::uint64_t nanoseconds = 0;  ///< of processor time, as far as known
};

/// One guest address space's user code, run by a process of the host (ExecutorProcess). See docs/translator.md.
///
/// Used by the vCPU's thread but for CodeFollower's part.
class Executor final : public CodeFollower {
 public:
  /// Null where the host refuses.
  static std::unique_ptr<Executor> create(VcpuContext& context, ExecutorCounters& counters);
  ~Executor() override;

  enum class End : std::uint8_t {
    done,      ///< something else must be done: an event, kernel code
    unsuited,  ///< the CPU's mode is not for executors
    refused,   ///< the host has no room for more of the guest's pages
    remapped,  ///< code is elsewhere, or gone: another program runs here now, most likely
    gone,      ///< the process had died before it was entered: nothing is lost
    dead,      ///< the process died, and with it what the guest's program did since it was entered
  };
  /// Runs user code from the CPU's state on.
  End run();

  // The guest's TLB maintenance. Vector state may be live.
  void flushPage(std::uint64_t linear) {
    if (flushCount_ == kMostFlushes) {
      mustRevalidate_ = true;
    } else {
      flushes_[flushCount_++] = linear;
    }
  }
  void flushAll() { mustRevalidate_ = true; }
  /// For another address space from now on.
  void forgetAll();
  /// For the program that is about to run. Whether its code may run as it is.
  bool begin();

  /// How often it stopped since isWorthIt() was asked last, but for new code.
  std::uint64_t stops() const { return stops_; }
  /// Whether it ran for long, since this was asked last, from one stop to the next.
  bool isWorthIt();
  /// Whether its last page faults that the guest's kernel answered came one right after the other.
  bool fillsMemory() const { return burst_ >= kBurst; }
  void endBurst() { burst_ = 0; }
  /// Whether most of those stops were page faults.
  bool faultedMost() const { return faultedMost_; }
  std::uint64_t processorTime() const { return process_->processorTime(); }

  void pageGuarded(std::uint64_t ramPage) override;
  bool codeWritten(std::uint64_t ramPage, std::uint64_t granules) override;
  void addKeptPages(std::vector<bool>& pages) const override;

 private:
  struct CodePage {
    std::uint64_t ramPage, granules;
    /// Whether its code runs as it is (runsAsItIs()): then the executor shows it for execution.
    enum class Kind : std::uint8_t { unknown, native, translated } kind = Kind::unknown;
    std::uint8_t partial = 0;  ///< how often the pages around it were not known when that was asked
  };
  enum class Stop : std::uint8_t { goOn, leave, dead };

  Executor(VcpuContext& context, ExecutorCounters& counters, std::unique_ptr<ExecutorProcess> process);
  void settle();
  void checkCode(bool all);
  void count();
  void forgetCode();
  void enter(std::uint64_t host);
  bool resume();
  Stop handleStop();
  Stop handleSignal();
  Stop handleFault(const ExecutorCode::Place& place);
  void takeRegisters();
  void countCrossings();
  void noteGuestsFault();
  void fillAfterFault();
  bool goOnAfterRead();
  bool mayCross(std::uint64_t linear) const;
  std::uint64_t lookUp(std::uint64_t rip, bool isAfterStop);
  std::uint64_t enterFromNative(std::uint64_t rip, std::uint64_t host);
  std::uint64_t translate(std::uint64_t rip, bool ahead);
  bool nativeFits() const;
  bool isNative(std::uint64_t rip, bool ahead);
  bool showCode(std::uint64_t rip, bool ahead);
  bool showsCode(std::uint64_t rip);
  Stop handleNative();
  bool takeSegments();
  bool knows(std::uint64_t rip) const;
  struct CodeNote {
    std::uint64_t ramPage = 0;
    std::uint64_t before = 0;  ///< pieces of the page that there was code of already
  };
  const std::uint8_t* codePage(std::uint64_t linear, CodeNote& note, bool ahead, std::uint64_t granules);
  std::uint64_t notePage(std::uint64_t linear, std::uint64_t ramPage, std::uint64_t granules);
  void step();

  VcpuContext& context_;
  ExecutorCounters& counters_;
  std::unique_ptr<ExecutorProcess> process_;
  ExecutorCode code_;
  ExecutorMemory memory_;
  bool native_ = false;     ///< guest code may run as it is
  bool hostsTime_ = false;  ///< guest code that runs as it is was judged for a counter that is the host's
  bool stepping_ = false;   ///< to the end of an instruction
  bool staysTranslated_ = false;
  std::uint64_t crossings_ = 0, crossedAt_ = 0,
                crossedSince_ = 0;  ///< from code that runs as it is, lately; processor time then
  std::unique_ptr<Block> block_;
  static constexpr std::size_t kAhead = 24;  ///< blocks that are translated at once, as a stop costs more than they do
  static constexpr std::size_t kAheadOfNative = 6;  ///< where little is translated
  std::vector<ExecutorCode::Successor> ahead_;
  std::uint32_t key_ = 0;  ///< ModeKey of the code
  static constexpr unsigned kMostFlushes = 64;
  std::uint64_t flushes_[kMostFlushes];
  unsigned flushCount_ = 0;
  bool mustRevalidate_ = false, remapped_ = false;
  struct GuestFault {
    std::uint64_t rip = 0, linear = 0;
    bool write = false, valid = false;
    bool wentOn = false;  ///< what comes after a read was interpreted already
  };
  GuestFault guestFault_;  ///< what the guest's kernel was asked for: it is likely to be there when it returns
  std::uint64_t lastFault_ = ~std::uint64_t{0};          ///< what the last fault that was filled was of
  std::uint64_t stops_ = 0, faults_ = 0, lookedAt_ = 0;  ///< of the stops: page faults; processor time then
  bool faultedMost_ = false;
  static constexpr unsigned kBurst = 24;
  unsigned burst_ = 0;
  std::uint64_t burstAt_ = 0;  ///< time stamp counter at the last of these faults
  unsigned refusals_ = 0;
  std::uint64_t fullAt_ = 0;   ///< processor time when its code had to go for want of room
  std::uint64_t counted_ = 0;  ///< bytes of code that the store knows of

  /// All code must go; something of `guarded_` or `written_` is to be done.
  std::atomic<bool> running_{false}, stale_{false}, pending_{false};
  std::atomic<std::uint64_t> runs_{0};                                 ///< of guest code, begun
  mutable std::mutex mutex_;                                           ///< of what others change
  std::unordered_map<std::uint64_t, CodePage> codePages_;              ///< by linear page
  std::unordered_multimap<std::uint64_t, std::uint64_t> codePagesOf_;  ///< by RAM page; some stale
  std::vector<std::uint64_t> guarded_;  ///< RAM pages that must not be written to any more
  std::vector<std::uint64_t> written_;  ///< linear pages of code that has changed
};

/// The executors of one vCPU, and which address space gets one: programs that compute. A program that calls its kernel
/// all the time is faster in the vCPU's own translated code.
class Executors {
 public:
  struct Options {
    bool always;      ///< for tests, at once and for good
    bool native;      ///< code runs as it is where it can
    bool translated;  ///< programs whose code may not run as it is get one, too
  };
  Executors(VcpuContext& context, const Options& options);
  /// Nothing: the host cannot have them, `trace` forbids them, or they are of no use to this CPU.
  static std::optional<Options> chosen(std::string_view trace, const x86::CpuModel& model);
  bool runsNatively() const { return native_; }
  PageVerdicts& verdicts() { return verdicts_; }
  ExecutorSeat& seat() { return seat_; }

  /// Each time before code runs.
  void look() {
    if (linger_.root != 0) endLinger();
  }
  /// The executor for the address space that is current, if user code is about to run and is to run there.
  Executor* current();
  /// An event interrupted the vCPU.
  void noteEvent();
  /// After Executor::run().
  void noteRun(Executor& executor, Executor::End end);
  /// Whether user code of the current address space runs in an executor. Vector state may be live.
  bool isActive() const {
    for (const Space& space : spaces_) {
      if (space.active && space.root == root()) return true;
    }
    return always_;
  }

  void flushPage(std::uint64_t linear);
  void flushAll();
  void addressSpaceChanged(bool noFlush);

  const ExecutorCounters& counters() const { return counters_; }

 private:
  struct Space {
    std::uint64_t root = 0, cr3 = 0;
    std::unique_ptr<Executor> executor;
    bool active = false;
    int threadId = 0;
    std::uint64_t lastUse = 0, retryAt = 0, penalty = 0;  ///< ticks of the time stamp counter
    unsigned unsuited = 0;                                ///< how often in turn it was not possible
  };
  static constexpr unsigned kMost = 4;

  std::uint64_t root() const;
  Space* find(std::uint64_t root);
  void promote(std::uint64_t cr3, std::uint64_t now);
  bool mayRun() const;
  void linger(Space& space);
  void endLinger();
  bool wait(std::uint64_t ticks);
  std::uint64_t ticks(std::uint64_t microseconds) const;

  VcpuContext& context_;
  bool always_, native_, translated_;
  bool impossible_ = false;
  unsigned failures_ = 0;      ///< to start one, in a row
  std::uint64_t startAt_ = 0;  ///< not before, after a failure
  std::vector<Space> spaces_;
  std::uint64_t endedNanoseconds_ = 0;  ///< of executors that are no more
  /// The address space that is left while its program fills new memory.
  struct Linger {
    std::uint64_t root = 0;              ///< 0: none
    std::uint64_t since = 0, until = 0;  ///< ticks: when it began to wait, when to look again
    std::uint64_t window = 0;            ///< between them
    std::uint64_t failed = 0;            ///< VcpuContext::userFaults when it began to wait
    std::uint64_t filled = 0;            ///< pages, up to then
    std::uint64_t quietAt = 0;           ///< ticks: no more faults since then; 0: they come
  } linger_;
  KickTimer timer_;
  ExecutorSeat seat_;
  std::uint64_t candidate_ = 0, streak_ = 0, lastEvent_ = 0;
  ExecutorCounters counters_;
  PageVerdicts verdicts_;
};

}  // namespace lodge::translate
