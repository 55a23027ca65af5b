// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/file.h"
#include "control/console_frames.h"
#include "control/console_hub.h"
#include "control/line_reader.h"
#include "control/machine_end.h"
#include "control/protocol.h"

namespace lodge::control {

class ControlServer;

/// One client of the control socket: request lines at first, console frames once it has attached. Owned by
/// ControlServer. I/O thread only.
class ControlConnection : public ConsoleHub::Member {
 public:
  ControlConnection(ControlServer& server, std::uint64_t id, UniqueFd fd);
  ~ControlConnection() override;
  ControlConnection(const ControlConnection&) = delete;
  ControlConnection& operator=(const ControlConnection&) = delete;

  void start();
  /// Sends what is queued, for up to `milliseconds`, and no more afterwards.
  void finish(int milliseconds);

  /// Tells the client, if it waits for that.
  void machineEnded(const EndRecord& record);

  void consoleOutput(std::string_view bytes) override;
  void consoleRoom() override;

 private:
  void ready(std::uint32_t events);
  void receive();
  void received(std::string_view bytes);
  void serve(std::string_view line);
  void serve(const Request& request);
  void attach(const Request& request);
  Status save(const Request& request);
  bool hasHungUp() const;
  void serveFrames();
  void offerInput();
  void send(std::string_view bytes);
  void flush();
  void watch();
  void close();

  ControlServer& server_;
  std::uint64_t id_;
  UniqueFd fd_;
  LineReader lines_{kMaxLineLength};
  FrameReader frames_;
  std::string out_;                     ///< queued for the client
  std::string input_;                   ///< from the client, not yet taken by the guest
  std::uint64_t skipped_ = 0;           ///< console bytes that found no room in out_
  std::vector<std::uint64_t> waiting_;  ///< ids of unanswered wait requests
  bool attached_ = false, closed_ = false;
};

}  // namespace lodge::control
