// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/event_loop.h"
#include "display/screen.h"
#include "machine/config.h"
#include "machine/removable_drives.h"
#include "state/state_file.h"

namespace lodge {

/// Where the bytes of the first serial port and of the virtio console go and come from. Implemented by the command line
/// (terminal, pipe, console socket).
class ConsoleSink {
 public:
  virtual ~ConsoleSink() = default;
  /// Bytes from the guest. Any thread; must not block for long.
  virtual void output(const char* data, std::size_t length) = 0;
};

/// A whole virtual machine: RAM, engine, vCPU threads, board. One a process, though nothing here depends on that.
/// create() opens and checks everything (kernel, disks, ports) before the guest runs; start() lets vCPU threads go.
/// The functions below may be called on the event loop's thread.
class Machine {
 public:
  /// Errors name the thing and the fix; nothing is left behind.
  static Result<std::unique_ptr<Machine>> create(EventLoop& loop, const MachineConfig& config, ConsoleSink& console);
  virtual ~Machine() = default;

  virtual void start() = 0;
  /// Bytes for the virtio console if there is one, else for the first serial port; returns how many were taken (the
  /// rest to be offered again after onConsoleRoom).
  virtual std::size_t consoleInput(const char* data, std::size_t length) = 0;
  virtual void onConsoleRoom(std::function<void()> callback) = 0;
  /// The size of the terminal's window, in characters; for a console that can tell its guest.
  virtual void resizeConsole(std::uint16_t columns, std::uint16_t rows) = 0;
  virtual void powerButton() = 0;
  /// As the guest's own: a machine that is paused stays so, and begins anew when it goes on.
  virtual void reset() = 0;
  virtual void pause() = 0;
  virtual void resume() = 0;
  /// Ends the machine (MachineEnd::killed).
  virtual void quit() = 0;

  enum class State : std::uint8_t { created, running, paused, ended };
  virtual State state() const = 0;
  /// Called once, on the loop's thread, when the machine ended; `status` is isa-debug-exit's value where that was the
  /// end.
  virtual void onEnd(std::function<void(MachineEnd end, int status)> callback) = 0;
  virtual std::string engineName() const = 0;
  /// The machine goes on where it is on another engine ("auto": the best there is). Errors, before anything stops:
  /// chooseEngine()'s, the engine's own; the machine then stays as it was. I/O thread.
  virtual Status switchEngine(const std::string&) {
    return Error(ErrorKind::unsupported, "this machine keeps its engine");
  }
  /// Writes the whole machine to a file that Machine::create() starts from again (MachineConfig::restoreFrom). It
  /// stands still meanwhile, and then goes on or ends (MachineEnd::saved). On an error it goes on, and a file of before
  /// is still there. Errors: unsupported (a device that cannot be saved), busy (the guest has just asked for a reset or
  /// its end, which follows), StateFileWriter's. I/O thread.
  struct SaveRequest {
    std::string path;
    bool compress = false, keepRunning = false;
    state::Progress progress;
  };
  virtual Status save(const SaveRequest&) { return Error(ErrorKind::unsupported, "this machine cannot be saved"); }
  /// The screen with its keyboard and mouse; null if the machine has none. For the I/O thread.
  virtual Display* display() { return nullptr; }
  /// Ejects or changes a medium. Errors: RemovableDrives::change()'s; unsupported. I/O thread.
  virtual Status changeMedium(const MediumChange&) {
    return Error(ErrorKind::unsupported, "the machine has no drive with a medium to change");
  }
  /// Engine::describeCode(). Any thread.
  virtual std::string describeCode(std::uint64_t) const { return {}; }
  /// Named counters of the whole machine for `lodge stats`.
  virtual std::vector<std::pair<std::string, std::uint64_t>> statistics() const = 0;
};

/// The configuration of a saved machine, with restoreFrom. Errors: StateFile::open()'s, corrupt, unsupported.
Result<MachineConfig> savedConfig(const std::string& path);

/// Checks of a configuration that need no host resource (0 CPUs, 10 MiB of memory...): invalidArgument with a hint.
Status validate(const MachineConfig& config);

}  // namespace lodge
