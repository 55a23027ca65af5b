// SPDX-License-Identifier: Apache-2.0
#include "cli/machine_process.h"

#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <optional>

#include "base/log.h"
#include "base/text.h"
#include "cli/exit_status.h"
#include "cli/foreground.h"
#include "cli/layout.h"
#include "cli/signals.h"
#include "control/config_json.h"
#include "control/console_hub.h"
#include "control/control_server.h"
#include "control/machine_session.h"
#include "control/runtime_folder.h"
#include "memory/page_store.h"
#include "vnc/server.h"

namespace lodge::cli {

namespace {

constexpr std::uint32_t kSignalGraceSeconds = 30;
/// For clients and a blocked standard output to take the rest when the machine was turned off from outside.
constexpr int kKilledDrainMilliseconds = 1000;
constexpr int kClientDrainMilliseconds = 500;

/// Everything of a machine's process, in the order in which it comes to be; it goes in the reverse one.
class Process {
 public:
  Process(RunOptions options, const Program& program) : options_(std::move(options)), program_(program) {}

  Status open();
  Status start();
  int serve();
  control::MachineFolder& folder() { return *folder_; }
  void quit() { session_->quit(); }

 private:
  Status claim();
  Status openVnc();
  void onSignal(int signal);
  void say(const std::string& text);
  int finish();
  void printStatistics() const;
  void keepOrRemove(const control::EndRecord& end);

  RunOptions options_;
  const Program& program_;
  std::optional<control::MachineFolder> folder_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<control::ConsoleHub> hub_;
  std::unique_ptr<Machine> machine_;
  std::unique_ptr<control::MachineSession> session_;
  std::unique_ptr<control::ControlServer> server_;
  std::unique_ptr<vnc::Server> vnc_;
  std::unique_ptr<SignalWatch> signals_;
  std::unique_ptr<Foreground> foreground_;
};

Status Process::claim() {
  auto runtime = control::RuntimeFolder::open();
  if (!runtime) return std::move(runtime).error();
  auto folder = runtime->claim(options_.machine.name);
  if (!folder) return std::move(folder).error();
  folder_.emplace(std::move(*folder));
  options_.machine.name = folder_->name();
  const std::string pages = runtime->path() + control::file::kSharedPages;
  PageStore::removeLeft(pages);  // whose last machine was killed
  if (options_.sharePages) shareGuestPages(pages);
  return folder_->write(control::file::kConfig, control::toLine(control::toJson(options_.machine)));
}

Status Process::open() {
  if (Status claimed = claim(); !claimed) return claimed;
  auto loop = EventLoop::create();
  if (!loop) return std::move(loop).error();
  loop_ = std::move(*loop);
  hub_ = std::make_unique<control::ConsoleHub>(*loop_);
  auto machine = program_.createMachine(*loop_, options_.machine, *hub_);
  if (!machine) return std::move(machine).error();
  machine_ = std::move(*machine);
  hub_->connect(*machine_);
  hub_->onResize = [this](control::WindowSize window) { machine_->resizeConsole(window.columns, window.rows); };
  session_ = std::make_unique<control::MachineSession>(*loop_, *machine_, options_.machine);
  session_->onEnd([this](const control::EndRecord&) { loop_->stop(); });
  auto listener = folder_->listen();
  if (!listener) return std::move(listener).error();
  server_ = std::make_unique<control::ControlServer>(*loop_, *session_, *hub_, std::move(*listener));
  if (Status started = server_->start(); !started) return started;
  if (Status shown = openVnc(); !shown) return shown;
  auto signals = SignalWatch::create(*loop_, [this](int signal) { onSignal(signal); });
  if (!signals) return std::move(signals).error();
  signals_ = std::move(*signals);
  return {};
}

Status Process::openVnc() {
  if (!options_.vnc) return {};
  Display* display = machine_->display();
  if (!display) {
    return Error(ErrorKind::invalidArgument, "--vnc shows a display, and the micro board has none")
        .withHint("choose --board pc");
  }
  auto server = vnc::Server::create(*loop_, *display, "Lodge: " + options_.machine.name, *options_.vnc);
  if (!server) return std::move(server).error();
  vnc_ = std::move(*server);
  return {};
}

Status Process::start() {
  if (!options_.detach) {
    foreground_ = std::make_unique<Foreground>(*loop_, *hub_, *session_);
    if (Status started = foreground_->start(); !started) return started;
  }
  machine_->start();
  return {};
}

void Process::say(const std::string& text) {
  if (foreground_) return foreground_->say(text);
  log(LogLevel::warning, "{}", text);
}

void Process::onSignal(int signal) {
  if (signal == SIGTERM || signal == SIGINT || signal == SIGHUP) {
    if (session_->stateName() == "stopping") return session_->quit();
    say(fmt::format("{}: power button pressed; the next signal turns the machine off, and so do {} s",
                    signal == SIGTERM  ? "SIGTERM"
                    : signal == SIGINT ? "SIGINT"
                                       : "SIGHUP",
                    kSignalGraceSeconds));
    return session_->stop(kSignalGraceSeconds);
  }
  if (foreground_) foreground_->onSignal(signal);
}

int Process::serve() {
  Status served = loop_->run();
  if (!served) log(LogLevel::error, "{}", served.error().message());
  return served ? finish() : exit_status::kLodgeError;
}

int Process::finish() {
  control::EndRecord end = *session_->end();
  hub_->flush();
  server_->finish(kClientDrainMilliseconds);
  if (foreground_) {
    foreground_->finish(end.end == MachineEnd::killed || end.end == MachineEnd::saved ? kKilledDrainMilliseconds : -1);
    if (end.end == MachineEnd::crashed) log(LogLevel::error, "{}", control::describe(end));
  }
  if (options_.stats && !session_->forced()) printStatistics();
  keepOrRemove(end);
  if (session_->forced()) {
    // A thread of the machine's does not stop: its objects must not be destroyed under it.
    folder_.reset();
    ::_exit(exitStatusOf(end));
  }
  return exitStatusOf(end);
}

void Process::printStatistics() const {
  std::vector<std::vector<std::string>> rows = {{"COUNTER", "VALUE"}};
  for (const auto& [name, value] : machine_->statistics()) rows.push_back({name, std::to_string(value)});
  std::fputs(columns(rows, {1}).c_str(), stderr);
}

void Process::keepOrRemove(const control::EndRecord& end) {
  if (!options_.detach) return;
  if (Status kept = folder_->keep(end, hub_->recent()); !kept) log(LogLevel::warning, "{}", kept.error().message());
}

}  // namespace

int runMachine(const RunOptions& options, const Program& program,
               const std::function<bool(control::MachineFolder&)>& onStarted) {
  blockSignals();
  Process process(options, program);
  Status status = process.open();
  if (status) status = process.start();
  if (!status) return fail(status.error());
  if (!onStarted(process.folder())) process.quit();
  return process.serve();
}

}  // namespace lodge::cli
