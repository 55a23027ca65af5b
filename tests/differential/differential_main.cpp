// SPDX-License-Identifier: Apache-2.0
// differential [--engine interpret|translate] [OPTION...]
// Runs random snippets on the host CPU and on an engine and compares everything. Exit status 1 on a difference, 2 if
// the options make no sense, 77 if the host cannot be compared with.
#include <fmt/format.h>
#include <pthread.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <thread>

#include "tests/differential/compare.h"
#include "tests/differential/generator.h"
#include "tests/differential/guest.h"
#include "tests/differential/options.h"
#include "tests/differential/oracle.h"
#include "tests/differential/path_tracer.h"
#include "tests/differential/single_step.h"

using namespace lodge;
using namespace lodge::differential;

namespace {

int fail(const Error& error) {
  fmt::print(stderr, "differential: {}\n", error.message());
  return 3;
}

/// Sends the vCPU out of whatever it executes, at any moment. It must come back to where it was.
class Kicker {
 public:
  explicit Kicker(x86::Cpu& cpu) : thread_([this, &cpu] { run(cpu); }) {}
  ~Kicker() {
    stop_ = true;
    thread_.join();
  }

 private:
  void run(x86::Cpu& cpu) {
    for (unsigned n = 0; !stop_; ++n) {
      if (cpu.kick) cpu.kick(cpu);
      std::this_thread::sleep_for(std::chrono::microseconds(n % 3));
    }
  }
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

/// What takes longer is left out where the reference takes longer: most of the time would go to it.
constexpr double kEndless = 0.15, kEndlessForReference = 0.02;

/// Ends what does not end.
class Watchdog {
 public:
  /// `limit`: seconds of processor time.
  Watchdog(Guest* guest, double limit) : limit_(limit) {
    ::pthread_getcpuclockid(::pthread_self(), &clock_);
    if (guest) thread_ = std::thread([this, guest] { run(*guest); });
  }
  ~Watchdog() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }

 private:
  void run(Guest& guest) {
    std::uint64_t known = ~std::uint64_t{0};
    double since = 0;
    while (!stop_) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      std::uint64_t now = guest.runs();
      if (now != known || !guest.isRunning()) since = processorTime();
      if (guest.isRunning() && now == known && processorTime() > since + limit_) guest.stop();
      known = now;
    }
  }
  /// Seconds that the guest's thread has had: the machine may be busy.
  double processorTime() const {
    timespec time{};
    ::clock_gettime(clock_, &time);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
  }
  double limit_;
  clockid_t clock_{};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

/// One seed's run.
class Comparison {
 public:
  Comparison(const Options& options, Oracle* oracle, Guest* reference, Guest& guest, std::uint64_t seed)
      : options_(options),
        oracle_(oracle),
        reference_(reference),
        guest_(guest),
        seed_(seed),
        how_{options.translates(), options.laxFlags, options.kernel, options.guests(), options.code32 || options.code16,
             options.protectedMode},
        generator_(seed, {options.laxFlags, options.kernel, options.code32, options.code16, options.mmio,
                          options.protectedMode}),
        chill_(seed) {}
  Status run();
  std::uint64_t done = 0, differences = 0;
  std::map<std::string, std::uint64_t> skipped;
  std::map<std::uint32_t, std::uint64_t> endings;  ///< by vector
  const Generator& generator() const { return generator_; }

 private:
  void compare(const Snippet& snippet, const Outcome& host, std::uint64_t number);
  bool hostCanAgree(const Snippet& snippet, const Outcome& ours);
  void printFirst(const Snippet& snippet);
  void printData(const Snippet& snippet);
  bool sameAfresh(const Snippet& snippet);
  std::string_view reasonOnThePath(const Snippet& snippet);

  const Options& options_;
  Oracle* oracle_;    ///< the host, or
  Guest* reference_;  ///< another guest
  Guest& guest_;
  std::unique_ptr<PathTracer> tracer_;  ///< made at the first difference
  std::uint64_t seed_;
  Comparing how_;
  Generator generator_;
  std::uint64_t chill_;
  std::vector<Snippet> snippets_;
};

/// Whether both guests agree after all when nothing is left in memory of what ran before: at CPL 0 without CR0.WP,
/// snippets change each other's code.
bool Comparison::sameAfresh(const Snippet& snippet) {
  for (unsigned round = 0; round < 4; ++round) {
    reference_->loadCode(snippets_);
    guest_.loadCode(snippets_);
    if (!difference(reference_->run(snippet), guest_.run(snippet), how_).empty()) return false;
  }
  return true;
}

std::string_view Comparison::reasonOnThePath(const Snippet& snippet) {
  if (!tracer_) {
    auto made = PathTracer::create(options_.kind());
    if (!made) return "";
    tracer_ = std::move(*made);
  }
  return tracer_->follow(snippets_, snippet, options_.laxFlags);
}

/// Whether the host, asked again, says what the guest said.
bool Comparison::hostCanAgree(const Snippet& snippet, const Outcome& ours) {
  Outcome again{};
  for (unsigned n = 0; n < 3; ++n) {
    if (oracle_->run({&snippet, 1}, {&again, 1}) && difference(again, ours, how_).empty()) return true;
  }
  return false;
}

/// The instruction that the difference begins with: the code ends with INT3 at each boundary in turn.
void Comparison::printFirst(const Snippet& snippet) {
  for (unsigned at = 0; at < snippet.length;) {
    x86::Instruction i{};
    if (x86::decode(snippet.code + at, 15, codeSize(snippet), i) != x86::DecodeStatus::ok) return;
    Snippet part = snippet;
    unsigned end = at + i.length;
    part.code[end] = 0xcc;
    Outcome host{};
    if (oracle_ && !oracle_->run({&part, 1}, {&host, 1})) return;
    if (!oracle_) {
      reference_->loadCode({&part, 1});
      host = reference_->run(part);
    }
    guest_.loadCode({&part, 1});
    std::string text = difference(host, guest_.run(part), how_);
    if (!text.empty() && !host.skipped) {
      fmt::print("   with an INT3 at {:x}, after {}:{}\n", part.before.rip + end, i.info->mnemonic, text);
      break;
    }
    at = end;
  }
  if (reference_) reference_->loadCode(snippets_);
  guest_.loadCode(snippets_);
}

/// Where the data pages differ after a snippet.
void Comparison::printData(const Snippet& snippet) {
  Outcome again{};
  if (oracle_ && !oracle_->run({&snippet, 1}, {&again, 1})) return;
  if (!oracle_) reference_->run(snippet);
  guest_.run(snippet);
  std::span<const std::byte> host = oracle_ ? oracle_->data() : reference_->data(), guest = guest_.data();
  for (std::size_t at = 0, shown = 0; at < host.size() && shown < 32; ++at) {
    if (host[at] == guest[at]) continue;
    fmt::print("   memory[{:x}]: host {:02x} guest {:02x}\n", kDataBase + at, static_cast<unsigned>(host[at]),
               static_cast<unsigned>(guest[at]));
    ++shown;
  }
}

void Comparison::compare(const Snippet& snippet, const Outcome& host, std::uint64_t number) {
  std::string_view reason = host.skipped ? "the host could not run it" : reasonToSkip(snippet, host, how_);
  ++endings[host.vector];
  // Again: then translated code is there, and linked.
  std::uint64_t rounds = snippet.restated ? 1 : options_.rounds;
  for (std::uint64_t round = 0; reason.empty() && round < rounds; ++round) {
    chill_ = chill_ * 6364136223846793005 + 1442695040888963407;
    if ((chill_ >> 62) == 0) guest_.chill(chill_ >> 24);
    Outcome ours = guest_.run(snippet);
    if (ours.skipped) ours = guest_.run(snippet);  // on a busy machine once is not enough to call it endless
    std::string text = difference(host, ours, how_);
    if (text.empty()) continue;
    reason = reasonToDiffer(snippet, host, ours, how_);
    if (reason.empty() && options_.kernel && sameAfresh(snippet))
      reason = "without CR0.WP, code that other snippets left";
    std::string_view onThePath = reason.empty() && oracle_ ? reasonOnThePath(snippet) : "";
    // An engine that alone goes astray does not explain it.
    if (reason.empty() && endsAstray(snippet, host)) reason = onThePath;
    if (reason.empty() && tracer_ && oracle_ && tracer_->adjusts() && onlyAdjustedFlagsDiffer(host, ours, how_))
      reason = "flags of a decimal adjustment that was not chosen";
    if (reason.empty() && oracle_ && ours.vector == 14 && oracle_->usesItself(ours.faultAddress))
      reason = "an address at which the process that runs snippets has something";
    if (reason.empty() && oracle_ && showsX87Pointers(snippet) && hostCanAgree(snippet, ours))
      reason = "x87 instruction and data pointers, which AMD's processors lose when the host's kernel interrupts";
    if (!reason.empty()) break;
    ++differences;
    fmt::print("DIFF seed {} snippet {} round {}{}:{}\n   {}\n", seed_, number, round,
               snippet.inPatchArea ? " (patch area)" : "", describe(snippet), text);
    if (options_.verbose) {
      fmt::print("   before: {}\n   ended: exception {} at {:x}, address {:x}\n", describeStart(snippet), host.vector,
                 host.after.rip, host.faultAddress);
      if (reference_ && host.mmioHash != ours.mmioHash)
        fmt::print("   interpreter:\n{}   {}:\n{}", reference_->mmioAccesses(), options_.engine, guest_.mmioAccesses());
      if (tracer_) fmt::print("   path:{}\n", tracer_->path());
      if (host.dataHash != ours.dataHash) printData(snippet);
      printFirst(snippet);
    }
    return;
  }
  if (!reason.empty()) ++skipped[std::string(reason)];
}

Status Comparison::run() {
  snippets_.resize(kBatch);
  how_.batch = snippets_;
  std::span<Snippet> snippets(snippets_);
  std::vector<Outcome> outcomes(kBatch);
  while (done < options_.count && differences < options_.keepGoing) {
    for (unsigned i = 0; i < kBatch; ++i) snippets[i] = generator_.next(i);
    if (oracle_) {
      if (Status ran = oracle_->run(snippets, outcomes); !ran) return ran;
    } else {
      reference_->loadCode(snippets);
    }
    guest_.loadCode(snippets);
    for (unsigned i = 0; i < kBatch && differences < options_.keepGoing; ++i)
      compare(snippets[i], reference_ ? reference_->run(snippets[i]) : outcomes[i], done + i);
    done += kBatch;
  }
  return {};
}

void list(const Comparison& comparison, const Guest& guest) {
  const Generator& generator = comparison.generator();
  for (const auto& [vector, count] : comparison.endings) fmt::print("ended by exception {}: {}\n", vector, count);
  for (const auto& [reason, count] : comparison.skipped) fmt::print("skipped {} ({})\n", reason, count);
  for (std::string_view what : notCompared()) fmt::print("not compared {}\n", what);
  for (const auto& [name, count] : generator.generated()) fmt::print("generated {} {}\n", name, count);
  for (const auto& [name, count] : generator.leftOut()) fmt::print("left out {} ({})\n", name, count);
  for (const auto& [name, count] : guest.statistics()) fmt::print("engine {} {}\n", name, count);
}

int singleStep(const Options& options) {
  auto reference = Guest::create("interpret", "", options.kind());
  if (!reference) return fail(reference.error());
  auto guest = Guest::create("translate", options.trace + ",strict-flags", options.kind());
  if (!guest) return fail(guest.error());
  Generator generator(options.seed,
                      {false, options.kernel, options.code32, false, options.mmio, options.protectedMode});
  Watchdog watch(guest->get(), kEndless);
  SingleStepper stepper(**guest, **reference);
  std::vector<Snippet> snippets(kBatch);
  std::uint64_t done = 0, wrong = 0;
  for (; done < options.count && wrong < options.keepGoing; done += kBatch) {
    for (unsigned i = 0; i < kBatch; ++i) snippets[i] = generator.next(i);
    (*reference)->loadCode(snippets);
    (*guest)->loadCode(snippets);
    for (unsigned i = 0; i < kBatch && done + i < options.count && wrong < options.keepGoing; ++i) {
      std::string text = stepper.run(snippets[i]);
      if (text.empty()) continue;
      ++wrong;
      fmt::print("IMPRECISE seed {} snippet {}:{}\n   {}\n", options.seed, done + i, describe(snippets[i]), text);
    }
  }
  fmt::print(
      "differential: single-step, seed {}, {} snippets, {} host instructions, {} states compared, {} imprecise\n",
      options.seed, std::min(done, options.count), stepper.hostInstructions(), stepper.comparisons(), wrong);
  return wrong == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  auto parsed = parseOptions(argc, argv);
  if (!parsed) {
    (void)fail(parsed.error());
    return 2;
  }
  Options& options = *parsed;
  if (options.help) {
    fmt::print("{}", usage());
    return 0;
  }
  if (options.singleStep) return singleStep(options);
  std::unique_ptr<Oracle> oracle;
  std::unique_ptr<Guest> reference;
  if (options.guests()) {
    auto made = Guest::create("interpret", "", options.kind());
    if (!made) return fail(made.error());
    reference = std::move(*made);
  } else {
    auto made = Oracle::create(options.code16);
    if (!made) {
      constexpr int kSkipped = 77;
      int failed = fail(made.error());
      return made.error().kind() == ErrorKind::unsupported ? kSkipped : failed;
    }
    oracle = std::move(*made);
  }
  bool translates = options.translates();
  auto guest = Guest::create(options.engine, options.trace + (translates && !options.laxFlags ? ",strict-flags" : ""),
                             options.kind());
  if (!guest) return fail(guest.error());
  if (options.rounds == 0) options.rounds = translates ? 2 : 1;
  std::unique_ptr<Kicker> kicker;
  if (options.kicks) kicker = std::make_unique<Kicker>((*guest)->cpu());
  Watchdog watchReference(reference.get(), kEndlessForReference), watchGuest(guest->get(), kEndless);
  bool clean = true;
  for (std::uint64_t n = 0; n < options.seeds; ++n) {
    Comparison comparison(options, oracle.get(), reference.get(), **guest, options.seed + n);
    if (Status ran = comparison.run(); !ran) return fail(ran.error());
    if (options.list) list(comparison, **guest);
    std::uint64_t skipped = 0;
    for (const auto& [reason, count] : comparison.skipped) skipped += count;
    fmt::print("differential: engine {}, seed {}, {} snippets, {} skipped, {} differences\n", options.engine,
               options.seed + n, comparison.done, skipped, comparison.differences);
    std::fflush(stdout);
    clean = clean && comparison.differences == 0;
  }
  return clean ? 0 : 1;
}
