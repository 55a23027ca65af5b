// SPDX-License-Identifier: Apache-2.0
#include "machine/machine.h"

#include <atomic>
#include <cerrno>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "base/log.h"
#include "base/program_pages.h"
#include "base/text.h"
#include "engine/choose.h"
#include "engine/prepare.h"
#include "firmware/boot_state.h"
#include "firmware/loader.h"
#include "image/image_files.h"
#include "image/nbd_client.h"
#include "image/patience.h"
#include "machine/chipset.h"
#include "machine/config_state.h"
#include "machine/engine_requests.h"
#include "machine/idle_memory.h"
#include "machine/layout.h"
#include "machine/pc_board.h"
#include "machine/pci_devices.h"
#include "machine/processors.h"
#include "machine/saved_machine.h"
#include "machine/trace.h"
#include "x86/system.h"

namespace lodge {

namespace {

/// After this time what a machine's beginning took of the program is no longer wanted.
constexpr Nanoseconds kBeginning = kNanosecondsPerSecond;

class BoardMachine : public Machine {
 public:
  BoardMachine(EventLoop& loop, const MachineConfig& config)
      : loop_(loop), config_(config), savedConfig_(withAbsolutePaths(config)) {}
  ~BoardMachine() override {
    *alive_ = false;
    idleMemory_.reset();
    haltWhenLost(nullptr);
    // vCPUs stop first; devices then finish what they have begun while there are still CPUs to signal.
    if (processors_) processors_->stop();
    devices_.reset();
    processors_.reset();
  }
  Status open(ConsoleSink& console);

  void start() override;
  std::size_t consoleInput(const char* data, std::size_t length) override {
    if (auto* console = devices_->console()) return console->input(data, length);
    return chipset_->com1().input(data, length);
  }
  void onConsoleRoom(std::function<void()> callback) override {
    auto room = [this, callback = std::move(callback)] { onLoop(callback); };
    if (auto* console = devices_->console()) return console->onRoom(room);
    chipset_->com1().onRoom(room);
  }
  void resizeConsole(std::uint16_t columns, std::uint16_t rows) override {
    if (auto* console = devices_->console()) console->resize(columns, rows);
  }
  void powerButton() override { chipset_->acpi().pressPowerButton(); }
  void reset() override;
  void pause() override;
  void resume() override;
  void quit() override { end(MachineEnd::killed, 0); }
  State state() const override { return state_; }
  void onEnd(std::function<void(MachineEnd, int)> callback) override { onEnd_ = std::move(callback); }
  std::string describeCode(std::uint64_t linear) const override { return engine_->describeCode(linear); }
  std::string engineName() const override { return std::string(engine_->name()); }
  std::vector<std::pair<std::string, std::uint64_t>> statistics() const override;
  Status switchEngine(const std::string& name) override;
  Status save(const SaveRequest& request) override;
  Display* display() override { return devices_->display(); }
  Status changeMedium(const MediumChange& change) override {
    Status done = devices_->drives().change(change);
    if (done) noteMedium(savedConfig_, change);
    return done;
  }

 private:
  EngineSetup engineSetup() {
    return {*memory_, *model_, config_.cpus, config_.codeCache, config_.trace, config_.irqchip, requests_.interfaces};
  }
  void nameFormats();
  Status chooseByTime(std::string& engine);
  Status openKernel();
  Status openProcessors(const std::string& chosen);
  Status load();
  Status finishDisks();
  Status writeState(state::StateFileWriter& file, const SaveRequest& request);
  Status loadMemory(const std::string& engine);
  Status restoreState();
  void beginSharing();
  bool whileStill(const std::function<void()>& work);
  void goOn();
  void memoryIsLost(const Error& error);
  void haltWhenLost(Processors* processors);
  Error notRestored(Status why) const {
    return std::move(why).error().context("restore " + inQuotes(config_.restoreFrom));
  }
  void transfer(state::Snapshot& snapshot);
  BoardEvents boardEvents();
  /// Flash that only system management mode may change: Secure Boot rests on it.
  std::uint64_t smmOnlyBase() const {
    return config_.secureBoot ? 4_GiB - (memory_->videoOffset() - memory_->romOffset()) : 0;
  }
  /// Runs on the I/O thread, if the machine still exists then.
  void onLoop(std::function<void()> work) {
    loop_.post([alive = alive_, work = std::move(work)] {
      if (*alive) work();
    });
  }
  /// From a vCPU's thread: it executes nothing more, and the I/O thread does the work.
  void stopAnd(std::function<void()> work) {
    ++stops_;
    processors_->requestPause();
    onLoop([this, work = std::move(work)] {
      --stops_;
      work();
    });
  }
  void guestReset();
  void end(MachineEnd how, int status);

  EventLoop& loop_;
  MachineConfig config_;
  MachineConfig savedConfig_;  ///< as a process in another folder would need it
  EngineRequests requests_;
  std::atomic<State> state_{State::created};
  std::atomic<unsigned> stops_{0};  ///< that vCPUs asked for, and the I/O thread has not come to yet
  std::function<void(MachineEnd, int)> onEnd_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);

  std::mutex lossMutex_;                  ///< of the two below: memory is loaded on a thread of its own
  bool memoryLost_ = false;               ///< a piece of it was damaged: no CPU may go on
  Processors* toHalt_ = nullptr;          ///< processors_, while there are such
  std::unique_ptr<PageStore> pageStore_;  ///< if it shares pages
  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<x86::CpuModel> model_;
  std::unique_ptr<Engine> engine_;
  std::chrono::nanoseconds engineStart_{};  ///< how long engine and vCPUs took to be made
  IoBus ports_{"port I/O"}, mmio_{"memory"};
  std::unique_ptr<Chipset> chipset_;
  std::unique_ptr<PciDevices> devices_;
  std::unique_ptr<Processors> processors_;
  firmware::BootRequest boot_;
  std::optional<firmware::BootState> firstBoot_;  ///< until the machine starts for the first time,
  firmware::ImageCopies firstCopies_;             ///< while the rest is made
  std::unique_ptr<SavedMachine> saved_;           ///< what the machine starts from, until it runs
  std::unique_ptr<IdleMemory> idleMemory_;        ///< with pageStore_
  std::string lostEngine_;                        ///< could not be made again when memory had gone back
  std::unique_ptr<Timer> begun_;                  ///< what only its beginning took may go
};

BoardEvents BoardMachine::boardEvents() {
  BoardEvents events;
  events.reset = [this] { stopAnd([this] { guestReset(); }); };
  events.powerOff = [this] { stopAnd([this] { end(MachineEnd::poweredOff, 0); }); };
  events.panicked = [this] { stopAnd([this] { end(MachineEnd::crashed, 0); }); };
  events.debugExit = [this](std::uint32_t value) {
    stopAnd([this, value] { end(MachineEnd::debugExit, static_cast<int>(value << 1 | 1)); });
  };
  return events;
}

Status BoardMachine::open(ConsoleSink& console) {
  if (Status s = validate(config_); !s) return s;
  if (!config_.restoreFrom.empty()) {
    auto saved = SavedMachine::open(config_.restoreFrom);
    if (!saved) return std::move(saved).error();
    saved_ = std::move(*saved);
    if (Status same = compareDisks(saved_->disks, config_, false); !same) return same;
  }
  nameFormats();
  auto requests = EngineRequests::of(config_);
  if (!requests) return std::move(requests).error();
  requests_ = *requests;
  auto choice = chooseEngine(config_.engine);
  if (!choice) return std::move(choice).error();
  Status able = saved_ ? requests_.checkMove(choice->name, Virtualization::none) : requests_.check(choice->name);
  if (!able) return able;
  if (!sharedPagesPath().empty()) {
    auto store = PageStore::open(sharedPagesPath());
    if (!store) return std::move(store).error();
    pageStore_ = std::move(*store);
  }
  FlashFiles flash;
  auto memory = config_.board == Board::pc ? createPcMemory(config_, flash) : GuestMemory::create(config_.memory);
  if (!memory) return std::move(memory).error();
  memory_ = std::move(*memory);
  auto model = x86::makeCpuModel(requests_.cpuModel, config_.cpus);
  if (!model) return std::move(model).error();
  model_ = std::move(*model);
  if (requests_.tscHz != 0) x86::setTscHz(*model_, requests_.tscHz);
  if (config_.board == Board::pc) {
    x86::setPhysicalAddressBits(*model_, layout::pcAddressBits(GuestMemory::kHoleEnd + memory_->highSize()));
  }
  if (Status limited = limitModel(choice->name, *model_, config_.irqchip); !limited) return limited;
  if (Status offered = offerInterfaces(choice->name, *model_, requests_.interfaces, config_.irqchip); !offered)
    return offered;
  if (saved_) {  // CPUs are made by it
    Nanoseconds now = 0, utc = 0;
    transferModel(saved_->snapshot, *model_);
    transferClocks(saved_->snapshot, *model_, __builtin_ia32_rdtsc(), now, utc);
    if (Status same = saved_->snapshot.status(); !same) return notRestored(std::move(same));
  }
  if (Status s = chooseByTime(choice->name); !s) return saved_ ? notRestored(std::move(s)) : std::move(s);
  if (Status s = openKernel(); !s) return s;
  auto output = [&console](const char* data, std::size_t length) { console.output(data, length); };
  auto chipset = Chipset::create(config_, loop_, *memory_, ports_, mmio_, boardEvents(), output);
  if (!chipset) return std::move(chipset).error();
  chipset_ = std::move(*chipset);
  auto devices = PciDevices::create(config_, loop_, *memory_, ports_, mmio_, *chipset_, std::move(flash), output);
  if (!devices) return std::move(devices).error();
  devices_ = std::move(*devices);
  nameFormats();  // of network disks, which are open now
  if (Status same = saved_ ? compareDisks(saved_->disks, config_, true) : Status{}; !same) return same;
  if (Status loaded = saved_ ? loadMemory(choice->name) : Status{}; !loaded) return loaded;
  return openProcessors(choice->name);
}

/// Another engine than KVM if that does not scale the guest's time stamp counter, where the user leaves it open.
Status BoardMachine::chooseByTime(std::string& engine) {
  Status keeps = keepsTscRate(engine, *model_);
  if (keeps || config_.engine != "auto") return keeps;
  std::string other = requests_.insteadOfKvm(saved_ != nullptr);
  if (other.empty()) return keeps;
  log(LogLevel::warning, "engine {}: {}; the machine gets '{}'", engine, keeps.error().message(), other);
  engine = other;
  return requests_.applyMove(other, *model_, config_.irqchip);
}

// A disk keeps its format from now on, in what is saved, too, whatever the guest writes to its beginning: before the
// guest runs. Of a network disk it can be told when the machine has it open.
void BoardMachine::nameFormats() {
  for (std::size_t n = 0; n < config_.disks.size(); ++n) {
    DriveConfig& disk = config_.disks[n];
    if (disk.format.empty() && !disk.path.empty()) disk.format = image::formatByContent(disk.path);
    savedConfig_.disks[n].format = disk.format;
  }
}

Status BoardMachine::openKernel() {
  if (config_.board == Board::pc) return {};
  auto boot = firmware::openBootRequest(config_.kernel, config_.initrds, config_.append,
                                        Chipset::describe(config_, *memory_, model_->physicalAddressBits));
  if (!boot) return std::move(boot).error();
  boot_ = std::move(*boot);
  if (saved_) return {};
  // To copy a kernel takes as long as all else until the guest runs: both go on at once.
  auto state = firmware::loadKernel(*memory_, boot_, &firstCopies_);
  if (!state) return std::move(state).error();
  firstBoot_ = *state;
  firstCopies_.begin();
  return {};
}

Status BoardMachine::openProcessors(const std::string& chosen) {
  auto started = std::chrono::steady_clock::now();
  EngineSetup setup = engineSetup();
  auto engine = makeEngine(chosen, setup);
  if (!engine && config_.engine == "auto" && chosen != "interpret" && requests_.check("interpret")) {
    log(LogLevel::warning, "engine {}: {}; the machine gets 'interpret', which is 30 times slower ({})", chosen,
        engine.error().message(), engine.error().hint());
    if (Status copied = firstCopies_.finish(); !copied) return copied;
    engine = makeEngine("interpret", setup);
  }
  if (!engine) return std::move(engine).error();
  engine_ = std::move(*engine);
  auto onEnd = [this](VcpuExit exit) {
    stopAnd([this, exit] {
      if (exit == VcpuExit::shutdown) log(LogLevel::info, "the guest triple-faulted");
      if (config_.noReboot || exit == VcpuExit::failed)
        end(MachineEnd::crashed, 0);
      else
        guestReset();
    });
  };
  auto processors =
      Processors::create({*engine_, *model_, loop_, chipset_->apicBus(), chipset_->chips(), chipset_->doorbells(),
                          ports_, mmio_, smmOnlyBase(), traces(config_.trace, "io"), requests_.interfaces, onEnd});
  if (!processors) return std::move(processors).error();
  processors_ = std::move(*processors);
  haltWhenLost(processors_.get());
  devices_->setBeforeLook([this] { engine_->collectVideoStores(); });
  engineStart_ = std::chrono::steady_clock::now() - started;
  memory_->setMapObserver([this] { processors_->forgetTranslations(); });
  return saved_ ? restoreState() : load();
}

Status BoardMachine::load() {
  processors_->powerOn();
  if (config_.board == Board::pc) return {};  // the reset vector is the firmware's
  for (unsigned i = 0; i < processors_->count(); ++i) {
    firmware::applyFirmwareMsrs(boot_.platform, processors_->cpu(i).state);
  }
  auto state = firstBoot_ ? Result<firmware::BootState>(*firstBoot_) : firmware::loadKernel(*memory_, boot_);
  if (!state) return std::move(state).error();
  if (Status copied = firstCopies_.finish(); !copied) return std::move(copied).error().context("load kernel");
  firstBoot_.reset();
  firmware::applyBootState(*state, processors_->cpu(0).state);
  return {};
}

void BoardMachine::start() {
  processors_->start();
  if (saved_) {
    devices_->resume();
    processors_->noteStandstill();
  }
  saved_.reset();
  state_ = State::running;
  log(LogLevel::info, "the machine runs");
  processors_->resume();
  begun_ = loop_.makeTimer(releaseProgramPages);
  begun_->arm(loop_.clock().now() + kBeginning);
  if (pageStore_) beginSharing();
}

void BoardMachine::beginSharing() {
  // KVM finds pages by itself, and vhost-net's kernel thread does: neither could wait for one.
  auto may = [this] {
    if (state_ != State::running) return false;
    if (!lostEngine_.empty()) whileStill([] {});
    return engine_->name() != "kvm" && !devices_->usesVhost() && !traces(config_.trace, "lockstep") &&
           (!memory_->isLoading() || memory_->isSharing());
  };
  auto executed = [this] {
    constexpr std::string_view kName = "executor_microseconds";
    std::uint64_t all = 0;
    for (const auto& [name, value] : processors_->statistics()) all += name.ends_with(kName) ? value * 1000 : 0;
    return all;
  };
  idleMemory_ = std::make_unique<IdleMemory>(
      IdleMemory::Setup{loop_, *memory_, *pageStore_, config_.cpus, [this] { return processors_->slept(); }, executed,
                        may, [this](const std::function<void()>& work) { return whileStill(work); },
                        [this](const Error& error) { memoryIsLost(error); }});
}

/// After a pause, unless a vCPU has asked for a stop meanwhile.
void BoardMachine::goOn() {
  if (state_ == State::running && stops_ == 0) processors_->resume();
}

void BoardMachine::memoryIsLost(const Error& error) {
  {
    std::lock_guard lock(lossMutex_);
    memoryLost_ = true;
    if (toHalt_) toHalt_->halt();
  }
  log(LogLevel::error, "the machine ends: {}", error.message());
  onLoop([this] { end(MachineEnd::crashed, 0); });
}

/// Whom memoryIsLost(), which comes from the loader's thread, stops.
void BoardMachine::haltWhenLost(Processors* processors) {
  std::lock_guard lock(lossMutex_);
  toHalt_ = processors;
  if (toHalt_ && memoryLost_) toHalt_->halt();
}

/// The translator watches memory, remembers where pages are, and has processes that map them: it goes, and comes anew.
bool BoardMachine::whileStill(const std::function<void()>& work) {
  if (!devices_->isQuiet()) return false;
  std::string name = lostEngine_.empty() ? std::string(engine_->name()) : lostEngine_;
  EngineSetup setup = engineSetup();
  processors_->pause();
  if (stops_ != 0 || !devices_->isQuiet()) {
    goOn();
    return false;
  }
  engine_->collectVideoStores();
  auto go = [&](const std::string& on) {
    auto engine = makeEngine(on, setup);
    Status moved = engine ? processors_->moveTo(**engine) : Status(Error(engine.error()));
    if (moved)
      engine_ = std::move(*engine);
    else
      log(LogLevel::error, "engine {}: {}", on, moved.error().message());
    return moved.ok();
  };
  bool others = engine_->name() == "interpret" || go("interpret");
  if (others) work();
  if (others && name != "interpret") lostEngine_ = go(name) ? std::string() : name;
  goOn();
  return others;
}

void BoardMachine::pause() {
  if (state_ != State::running) return;
  state_ = State::paused;
  processors_->pause();
  // KVM's PIT would tick on.
  if (config_.irqchip == kKernelIrqchip) processors_->takeChips();
}

void BoardMachine::resume() {
  if (state_ != State::paused) return;
  state_ = State::running;
  processors_->noteStandstill();
  processors_->resume();
}

void BoardMachine::transfer(state::Snapshot& snapshot) {
  std::uint64_t tsc = __builtin_ia32_rdtsc();
  Nanoseconds now = loop_.clock().now(), today = hostUtc(), utc = today;
  if (!snapshot.loading()) transferModel(snapshot, *model_);
  transferClocks(snapshot, *model_, tsc, now, utc);
  if (snapshot.loading() && snapshot.status()) {
    loop_.setTime(now);
    processors_->clockWasSet();
    // Negative: the clock of this host, or of the other one, is wrong.
    if (utc != 0) log(LogLevel::info, "the machine stood still for {:.3f} s", static_cast<double>(today - utc) / 1e9);
  }
  processors_->takeChips();
  devices_->transfer(snapshot);
  chipset_->transfer(snapshot);
  processors_->transfer(snapshot, tsc);
}

// Before there is an engine, which may watch memory by the same means.
Status BoardMachine::loadMemory(const std::string& engine) {
  state::StateFile& file = *saved_->file;
  if (file.memoryBytes() != memory_->backingSize()) {
    return Error(ErrorKind::corrupt, fmt::format("{}: {} bytes of memory, and the machine has {}",
                                                 inQuotes(file.path()), file.memoryBytes(), memory_->backingSize()))
        .withHint("the firmware or its files are other ones than when the machine was saved");
  }
  auto onFailure = [this](const Error& error) { memoryIsLost(error); };
  return memory_->load(makeMemorySource(saved_->file), engine == "kvm", onFailure);
}

Status BoardMachine::restoreState() {
  processors_->powerOn();
  transfer(saved_->snapshot);
  Status done = saved_->snapshot.finish();
  if (done) done = processors_->tryNested();
  if (!done) return notRestored(std::move(done));
  return {};
}

Status BoardMachine::save(const SaveRequest& request) {
  if (state_ == State::ended || state_ == State::created)
    return Error(ErrorKind::invalidArgument, "the machine does not run");
  if (config_.testDevice) return Error(ErrorKind::unsupported, "a machine with the test device cannot be saved");
  auto file = state::StateFileWriter::create(request.path);
  if (!file) return std::move(file).error();
  if (Status loaded = memory_->finishLoading(); !loaded) return loaded;
  if (Status answer = networkDisksAnswer(savedConfig_); !answer) return answer;
  if (Status answer = image::busyNbdServersAnswer(); !answer) return answer;
  processors_->pause();
  if (stops_ != 0) {
    return Error(ErrorKind::busy, "save: the guest has just asked for a reset or its end")
        .withHint("try again if the machine still runs");
  }
  chipset_->com1().flush();
  Status done = finishDisks();
  if (done) done = writeState(**file, request);
  if (done && !request.keepRunning) {
    end(MachineEnd::saved, 0);
  } else if (state_ == State::running) {
    processors_->noteStandstill();
    goOn();
  }
  return done;
}

/// What is under way at the disks ends, and all is on them. A server that falls silent meanwhile is not waited for.
Status BoardMachine::finishDisks() {
  using Clock = std::chrono::steady_clock;
  Clock::time_point began = Clock::now(), look = began;
  auto isSilent = [](const std::string& disk) { return image::unanswered("write the disk " + inQuotes(disk)); };
  while (!devices_->isQuiet()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (Clock::now() - look < std::chrono::seconds(1)) continue;
    if (Status answer = image::busyNbdServersAnswer(); !answer) return answer;
    look = Clock::now();
    std::string busy = look - began >= image::kRequestPatience ? image::busyNbd() : "";
    if (!busy.empty()) return isSilent(busy);
  }
  int error = devices_->quiesce();
  if (error == 0) return {};
  std::string busy = error == ETIMEDOUT ? image::busyNbd() : "";
  return busy.empty() ? Error::fromErrno(error, "write the disks") : isSilent(busy);
}

Status BoardMachine::writeState(state::StateFileWriter& file, const SaveRequest& request) {
  auto disks = disksOf(savedConfig_);
  if (!disks) return std::move(disks).error();
  state::Snapshot snapshot;
  transferDescription(snapshot, savedConfig_, *disks);
  transfer(snapshot);
  auto sections = snapshot.bytes();
  if (!sections) return std::move(sections).error();
  std::span<const std::byte> memory(memory_->deviceView(), memory_->backingSize());
  if (Status s = file.writeMemory(memory, memory_->fd(), request.compress, request.progress); !s) return s;
  if (Status s = file.writeSections(*sections); !s) return s;
  return file.commit();
}

Status BoardMachine::switchEngine(const std::string& name) {
  if (state_ == State::ended || state_ == State::created)
    return Error(ErrorKind::invalidArgument, "the machine does not run");
  auto choice = chooseEngine(name);
  if (!choice) return std::move(choice).error();
  if (choice->name == engine_->name()) return {};
  if (Status able = requests_.checkMove(choice->name, Virtualization::none); !able) return able;
  if (Status same = engineKeepsModel(choice->name, *model_, config_.irqchip); !same) return same;
  // KVM cannot wait for a page, and asks for huge ones when it is made.
  if (Status loaded = memory_->finishLoading(); !loaded) return loaded;
  auto engine = makeEngine(choice->name, engineSetup());
  if (!engine) return std::move(engine).error();
  auto began = std::chrono::steady_clock::now();
  processors_->pause();
  Status moved = requests_.checkMove(choice->name, processors_->virtualizationInUse());
  if (moved) moved = requests_.applyMove(choice->name, *model_, config_.irqchip);
  if (moved) {
    engine_->collectVideoStores();  // the other one will not know of them
    moved = processors_->moveTo(**engine);
    if (!moved) static_cast<void>(requests_.applyMove(engineName(), *model_, config_.irqchip));
  }
  // What is left of the engine before goes while no CPU runs: it lifts its protection from guest memory.
  if (moved) engine_ = std::move(*engine);
  if (moved) lostEngine_.clear();
  goOn();
  if (!moved) return moved;
  auto took = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - began);
  log(LogLevel::info, "the machine goes on with engine {}, after {} us", choice->name, took.count());
  return {};
}

void BoardMachine::reset() {
  if (state_ == State::ended || state_ == State::created) return;
  processors_->pause();
  if (Status loaded = pageStore_ ? memory_->finishLoading() : Status(); !loaded)
    log(LogLevel::error, "reset: {}", loaded.error().message());
  processors_->takeChips();
  chipset_->reset();
  devices_->reset();
  if (Status loaded = load(); !loaded) {
    log(LogLevel::error, "reset: {}", loaded.error().message());
    end(MachineEnd::crashed, 0);
    return;
  }
  goOn();
}

void BoardMachine::guestReset() {
  if (config_.noReboot)
    end(MachineEnd::resetNoReboot, 0);
  else
    reset();
}

void BoardMachine::end(MachineEnd how, int status) {
  if (state_.exchange(State::ended) == State::ended) return;
  processors_->requestPause();
  chipset_->com1().flush();
  if (onEnd_) onEnd_(how, status);
}

std::vector<std::pair<std::string, std::uint64_t>> BoardMachine::statistics() const {
  std::vector<std::pair<std::string, std::uint64_t>> all;
  all.emplace_back("memory.size", memory_->size());
  all.emplace_back("memory.resident", memory_->residentBytes());
  all.emplace_back("engine.start_microseconds", static_cast<std::uint64_t>(engineStart_.count()) / 1000);
  all.emplace_back("doorbells.rings", chipset_->doorbells().rings());
  if (idleMemory_) {
    for (auto& entry : idleMemory_->statistics()) all.push_back(std::move(entry));
  }
  for (auto& entry : devices_->statistics()) all.push_back(std::move(entry));
  for (auto& entry : processors_->statistics()) all.push_back(std::move(entry));
  return all;
}

}  // namespace

Result<std::unique_ptr<Machine>> Machine::create(EventLoop& loop, const MachineConfig& config, ConsoleSink& console) {
  if (Status known = withholdHostFeatures(config.trace); !known) return std::move(known).error();
  prepareProcess();
  auto machine = std::make_unique<BoardMachine>(loop, config);
  if (Status opened = machine->open(console); !opened) return std::move(opened).error();
  return std::unique_ptr<Machine>(std::move(machine));
}

}  // namespace lodge
