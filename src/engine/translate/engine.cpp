// SPDX-License-Identifier: Apache-2.0
#include "engine/engine.h"

#include <algorithm>
#include <cerrno>
#include <new>

#include "base/trace.h"
#include "engine/translate/host_features.h"
#include "engine/translate/signals.h"
#include "engine/translate/vcpu.h"
#include "x86/events.h"
#include "x86/system.h"

namespace lodge::translate {

namespace {

/// 16 vCPUs with 8 PCIDs each would not fit into 47 bits.
unsigned spacesPerVcpu(unsigned cpus) {
  constexpr std::uint64_t budget = 80_TiB;
  constexpr std::uint64_t bytesEach = 768_GiB;
  return static_cast<unsigned>(
      std::clamp<std::uint64_t>(budget / bytesEach / std::max(cpus, 1u), 1, AddressSpaces::kSpaces));
}

/// `--trace strict-flags`: exact flags at every fault, for differential tests.
TranslationStore::Options optionsOf(const EngineSetup& setup) {
  TranslationStore::Options options{setup.codeCacheBytes, setup.model.features};
  options.strictFlags = traces(setup.trace, "strict-flags") || traces(setup.trace, "lockstep");
  if (traces(setup.trace, "lockstep")) {  // what has another answer each time is the interpreter's
    for (x86::Feature feature : {x86::Feature::rdrand, x86::Feature::rdseed})
      options.features &= ~(std::uint64_t{1} << static_cast<unsigned>(feature));
  }
  options.strings = !traces(setup.trace, "lockstep");  // they may be left in the middle
  options.returns = !traces(setup.trace, "no-returns");
  options.groups = !traces(setup.trace, "no-groups");
  options.tscRatio = setup.model.tscScale().ratio();
  options.perfMap = traces(setup.trace, "perf-map");
  return options;
}

std::uint64_t microsecondsOf(std::uint64_t ticks, const x86::CpuModel& model) {
  return model.ticksPerSecond() < 1'000'000 ? 0 : ticks / (model.ticksPerSecond() / 1'000'000);
}

void leave(CodeUser& user) {
  auto& context = static_cast<VcpuContext&>(user);
  context.frame->attention = 1;
  kickThread(context);
}

void kick(x86::Cpu& cpu) {
  auto& context = *static_cast<VcpuContext*>(cpu.engineData);
  if (context.inside.load(std::memory_order_seq_cst) != 0) leave(context);
}

/// Whether the host has the address space that all vCPUs need, before any of them exists: the machine can then take
/// another engine.
Status tryReservations(TranslationStore& store, unsigned cpus) {
  std::vector<std::unique_ptr<AddressSpaces>> all;
  for (unsigned n = 0; n < cpus; ++n) {
    auto spaces = AddressSpaces::create(store.missTable(), 1);
    if (!spaces) return std::move(spaces).error();
    all.push_back(std::move(*spaces));
  }
  return {};
}

class TranslateEngine final : public Engine {
 public:
  TranslateEngine(const EngineSetup& setup, std::unique_ptr<TranslationStore> store)
      : setup_(setup), store_(std::move(store)) {}

  std::string_view name() const override { return "translate"; }
  Result<std::unique_ptr<Vcpu>> createVcpu(unsigned index, x86::CpuEnvironment& environment) override {
    auto vcpu = TranslateVcpu::create(setup_, *store_, index, environment);
    if (!vcpu) return std::move(vcpu).error();
    return std::unique_ptr<Vcpu>(std::move(*vcpu));
  }
  std::string describeCode(std::uint64_t linear) const override { return store_->describe(linear); }

 private:
  EngineSetup setup_;
  std::unique_ptr<TranslationStore> store_;
};

}  // namespace

Result<std::unique_ptr<TranslateVcpu>> TranslateVcpu::create(const EngineSetup& setup, TranslationStore& store,
                                                             unsigned index, x86::CpuEnvironment& environment) {
  auto spaces = AddressSpaces::create(store.missTable(), spacesPerVcpu(setup.cpus));
  if (!spaces) return std::move(spaces).error();
  auto vcpu = std::unique_ptr<TranslateVcpu>(new TranslateVcpu());
  VcpuContext& context = vcpu->context_;
  vcpu->spaces_ = std::move(*spaces);
  context.spaces = vcpu->spaces_.get();
  context.frame = &context.spaces->frame();
  context.store = &store;
  context.leave = leave;
  context.countOps = traces(setup.trace, "steps");
  context.frame->misaligned = Frame::kMisaligned;
  context.frame->maskLow = 0x7ffffffff000;
  context.frame->maskBoth = 0xfffffffff000;
  context.frame->returnMask64 = ReturnCache::kMask64;
  context.frame->returnMask32 = ReturnCache::kMask32;
  context.cpu = new (context.spaces->cpuMemory()) x86::Cpu();
  x86::Cpu& cpu = *context.cpu;
  cpu.memory = &setup.memory;
  cpu.environment = &environment;
  cpu.model = &setup.model;
  cpu.tscScale = setup.model.tscScale();
  cpu.listener = &context;
  cpu.index = index;
  cpu.engineData = &context;
  cpu.kick = kick;
  auto interpreter = interpret::ContextOwner::create(cpu);
  if (!interpreter) return std::move(interpreter).error().context("create vCPU " + std::to_string(index));
  vcpu->interpreter_ = std::move(*interpreter);
  x86::resetCpu(cpu, false);
  store.addUser(context);
  if (traces(setup.trace, "lockstep")) {
    auto lockstep = Lockstep::create(context, setup.cpus);
    if (!lockstep) return std::move(lockstep).error();
    vcpu->lockstep_ = std::move(*lockstep);
    context.lockstep = vcpu->lockstep_.get();
  } else if (auto options = Executors::chosen(setup.trace, setup.model)) {
    vcpu->executors_ = std::make_unique<Executors>(context, *options);
    context.executors = vcpu->executors_.get();
  }
  return vcpu;
}

TranslateVcpu::~TranslateVcpu() {
  if (!context_.cpu) return;
  executors_.reset();
  context_.store->removeUser(context_);
  lockstep_.reset();
  interpreter_.reset();
  context_.cpu->~Cpu();
}

void TranslateVcpu::waitForEvent() {
  context_.store->trimIfIdle();
  x86::waitForEvents(*context_.cpu);
}

std::vector<std::pair<std::string, std::uint64_t>> TranslateVcpu::statistics() const {
  const VcpuCounters& c = context_.counters;
  const TranslationStore::Counters s = context_.store->counters();
  const CodeCache& cache = context_.store->cache();
  std::vector<std::pair<std::string, std::uint64_t>> all = {{"translations", s.translations},
                                                            {"translated_loops", s.loops},
                                                            {"translated_instructions", s.guestInstructions},
                                                            {"translated_bytes", s.guestBytes},
                                                            {"page_units", s.units},
                                                            {"invalidated_pages", s.invalidatedPages},
                                                            {"cache_resets", s.resets},
                                                            {"realigned", s.realigned},
                                                            {"cache_bytes", cache.usedBytes()},
                                                            {"cache_hot_bytes", cache.hotBytes()},
                                                            {"cache_cold_bytes", cache.coldBytes()},
                                                            {"cache_data_bytes", cache.dataBytes()},
                                                            {"cache_entry_table_bytes", s.entryTableBytes},
                                                            {"exits_attention", c.exits[EXIT_ATTENTION]},
                                                            {"exits_redo", c.exits[EXIT_REDO]},
                                                            {"exits_step", c.exits[EXIT_STEP]},
                                                            {"exits_link", c.exits[EXIT_LINK]},
                                                            {"exits_indirect", c.exits[EXIT_INDIRECT]},
                                                            {"exits_dispatch", c.exits[EXIT_DISPATCH]},
                                                            {"exits_fault", c.exits[EXIT_FAULT]},
                                                            {"tlb_misses", c.tlbMisses},
                                                            {"tlb_misses_failed", c.tlbMissesFailed},
                                                            {"indirect_misses", c.indirectMisses},
                                                            {"interpreter_callouts", c.callouts},
                                                            {"interpreter_steps", c.steps},
                                                            {"interpreted_instructions", c.interpreted},
                                                            {"fault_signals", c.signals},
                                                            {"fault_signals_read_only", c.readOnlyStores},
                                                            {"fault_signals_code_store", c.codeStores},
                                                            {"fault_signals_no_entry", c.emptyEntries},
                                                            {"flushes", c.flushes},
                                                            {"address_space_switches", c.addressSpaceSwitches}};
  const CountedMutex::Counters lock = context_.store->lockCounters();
  all.emplace_back("store_lock_taken", lock.taken);
  all.emplace_back("store_lock_waited", lock.waited);
  all.emplace_back("store_lock_held_microseconds", microsecondsOf(lock.heldTicks, *context_.cpu->model));
  const TimeSamples& t = context_.samples;
  std::uint64_t inExecutors = executors_ ? executors_->counters().nanoseconds / 1000 : 0;
  for (auto [name, samples] : {std::pair{"time_user_microseconds", t.user},
                               {"time_kernel_microseconds", t.kernel},
                               {"time_translator_microseconds", t.translator},
                               {"time_interpreter_microseconds", t.interpreter},
                               {"time_devices_microseconds", t.devices},
                               {"time_other_microseconds", t.other}})
    all.emplace_back(name, samples * kSampleMicroseconds);
  auto user = std::find_if(all.begin(), all.end(), [](const auto& c) { return c.first == "time_user_microseconds"; });
  user->second += inExecutors;
  if (executors_) {
    const ExecutorCounters& e = executors_->counters();
    for (auto [name, count] : {std::pair{"executors_started", e.started},
                               {"executors_lost", e.lost},
                               {"executor_promotions", e.promotions},
                               {"executor_demotions", e.demotions},
                               {"executor_stops", e.stops},
                               {"executor_steps", e.steps},
                               {"executor_links", e.links},
                               {"executor_indirect", e.indirect},
                               {"executor_kicks", e.kicks},
                               {"executor_fills", e.fills},
                               {"executor_faults", e.faults},
                               {"executor_lingers", e.lingers},
                               {"executor_fault_pairs", e.pairs},
                               {"executor_moves", e.moves},
                               {"executor_single_steps", e.singleSteps},
                               {"executor_translations", e.translations},
                               {"executor_calls", e.calls},
                               {"executor_fetches", e.fetches},
                               {"executor_crossings", e.crossings},
                               {"executor_native_pages", e.nativePages},
                               {"executor_translated_pages", e.translatedPages},
                               {"executor_clears", e.clears},
                               {"executor_revalidations", e.revalidations},
                               {"executor_microseconds", e.nanoseconds / 1000}})
      all.emplace_back(name, count);
  }
  if (lockstep_) {
    all.emplace_back("lockstep_checks", lockstep_->checks());
    all.emplace_back("lockstep_instructions", lockstep_->instructions());
    all.emplace_back("lockstep_divergences", lockstep_->divergences());
  }
  for (const VcpuContext::SteppedOp& op : context_.steppedOps) {
    if (op.count != 0) all.emplace_back(std::string("stepped.") + op.mnemonic, op.count);
  }
  return all;
}

}  // namespace lodge::translate

namespace lodge {

Result<std::unique_ptr<Engine>> makeTranslateEngine(const EngineSetup& setup) {
  using namespace translate;
  if (Status known = withholdHostFeatures(setup.trace); !known) return std::move(known).error();
  if (!hostFeatures().lahf64) {
    return Error(ErrorKind::unsupported, "the translate engine needs a processor with LAHF/SAHF in 64-bit mode")
        .withHint("use --engine interpret");
  }
  if (Status installed = installSignalHandlers(); !installed) return std::move(installed).error();
  auto store = TranslationStore::create(setup.memory, optionsOf(setup));
  if (!store) return std::move(store).error().context("translate engine");
  if (Status fits = tryReservations(**store, setup.cpus); !fits)
    return std::move(fits).error().context("translate engine");
  return std::unique_ptr<Engine>(std::make_unique<TranslateEngine>(setup, std::move(*store)));
}

}  // namespace lodge
