// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "control/json_fields.h"
#include "control/machine_end.h"
#include "control/typist.h"
#include "machine/machine.h"

namespace lodge::control {

/// What can be done to the machine of this process, for everyone who may ask: signals, the monitor menu, control
/// clients. I/O thread only.
class MachineSession {
 public:
  MachineSession(EventLoop& loop, Machine& machine, MachineConfig config);

  void powerButton();
  /// Also resumes a paused machine.
  void reset();
  void pause();
  void resume();
  /// Presses the power button, and turns the machine off if it still runs after `graceSeconds`.
  void stop(std::uint32_t graceSeconds);
  /// Turns the machine off. If it has not ended some seconds later its end is declared, and finished() tells `forced`.
  void quit();

  /// Writes what the machine shows to a PNG file. Errors: unsupported (no display), io, permissionDenied.
  Status screenshot(const std::string& path);
  /// Keys by their names, separated by spaces; see keysNamed(). Errors: unsupported, invalidArgument, busy.
  Status sendKeys(std::string_view keys);
  Status typeText(std::string_view text);
  /// The clipboard of the machine's screen. Errors: unsupported (no display).
  Result<std::string> clipboardText();
  /// Errors: unsupported, invalidArgument (more than Clipboard::kMostBytes).
  Status setClipboard(const std::string& text);
  /// Errors: invalidArgument (no address).
  Result<std::string> describeCode(std::string_view address) const;
  /// Errors: Machine::save()'s, invalidArgument (a relative path).
  Status save(const Machine::SaveRequest& request);
  /// Errors: Machine::switchEngine()'s.
  Status switchEngine(const std::string& name) { return machine_.switchEngine(name); }
  /// Errors: Machine::changeMedium()'s, invalidArgument (a relative path).
  Status changeMedium(const MediumChange& change);

  /// Makes the guest stand still while nobody takes its console output. Apart from pause() and resume().
  void holdForConsole(bool hold);

  /// Called on the I/O thread when the machine ended, in the order of the calls to this; at once if it has ended.
  void onEnd(std::function<void(const EndRecord&)> callback);
  const std::optional<EndRecord>& end() const { return end_; }
  /// The machine did not stop when told to: its threads may still run and must not be waited for.
  bool forced() const { return forced_; }

  /// "running", "paused", "blocked" (by the console), "stopping", "ended".
  std::string_view stateName() const;
  /// {"protocol", "name", "state", "engine", "cpus", "memory" (bytes), "uptimeSeconds", "pid"}
  Json describe() const;
  /// {"counters": {name: value}}: the machine's, and this process's memory and processor time.
  Json statistics() const;

 private:
  void applyPause();
  Result<Display*> display();
  Status press(const std::vector<KeyEvent>& events);
  void ended(const EndRecord& record);

  EventLoop& loop_;
  Machine& machine_;
  MachineConfig config_;
  std::unique_ptr<Typist> typist_;
  std::unique_ptr<Timer> graceTimer_, quitTimer_;
  std::vector<std::function<void(const EndRecord&)>> endCallbacks_;
  std::optional<EndRecord> end_;
  Nanoseconds started_;
  bool pausedByUser_ = false, heldForConsole_ = false, stopping_ = false, forced_ = false;
};

}  // namespace lodge::control
