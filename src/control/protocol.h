// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

#include "base/error.h"
#include "control/json_fields.h"

namespace lodge::control {

/// The control protocol: one JSON object a line, both ways, over a machine's control socket.
///   {"id":1,"request":"state"}                  -> {"id":1,"ok":true,"result":{...}}
///   {"id":2,"request":"stop","graceSeconds":30} -> {"id":2,"ok":true,"result":{}}
///   {"id":3,"request":"fly"}                    ->
///   {"id":3,"ok":false,"error":{"kind":"unsupported","message":...,"hint":...}}
/// "id" is an unsigned number of the client's (0 if left out). "version" may be given; a machine refuses versions above
/// its own and keeps answering those below. After a consoleAttach is answered the connection speaks console frames
/// (control/console_frames.h) until it is closed.
inline constexpr std::uint64_t kProtocolVersion = 1;

/// A longer line of a client ends the connection. Answers may be longer: a clipboard's text is.
inline constexpr std::size_t kMaxLineLength = 65536, kMaxAnswerLength = 2 << 20;

enum class RequestKind : std::uint8_t {
  state,  ///< name, state, engine, uptime: see MachineSession::describe()
  powerButton,
  reset,
  pause,
  resume,
  stop,           ///< power button, then off after graceSeconds
  quit,           ///< off at once
  stats,          ///< {"counters":{name:value...}}
  wait,           ///< answered with an EndRecord when the machine ends
  consoleAttach,  ///< columns, rows: the window's size, 0 if unknown
  screenshot,     ///< text: the absolute path of the PNG file to write
  sendKeys,       ///< text: names of keys ("ctrl-alt-delete ret"), pressed one after the other
  typeText,       ///< text: what to type
  describeCode,   ///< text: a guest address, 0x and hexadecimal -> {"text":Engine::describeCode()}
  clipboard,      ///< -> {"text": what is on the clipboard of the machine's screen}
  setClipboard,   ///< text: what to put on it
  save,           ///< text: the absolute path of the state file; compress, keepRunning. Before the answer come lines
                  ///< {"id":1,"progress":{"done":4096,"total":65536}}, in bytes
  switchEngine,   ///< text: the engine's name
  changeMedium,   ///< drive; text: the absolute path of the new medium, "" to eject; readonly, force
};

struct WindowSize {
  std::uint16_t columns = 0, rows = 0;  ///< 0: unknown
  bool operator==(const WindowSize&) const = default;
};

struct Request {
  std::uint64_t id = 0;
  RequestKind kind = RequestKind::state;
  WindowSize window{};                   ///< consoleAttach
  std::uint32_t graceSeconds = 30;       ///< stop: 0 to kMaxGraceSeconds
  std::string text{};                    ///< screenshot, sendKeys, typeText, setClipboard, changeMedium, describeCode
  std::string drive{};                   ///< changeMedium: "cd0"...; empty: the first
  bool readOnly = false, force = false;  ///< changeMedium; "readonly" and "force"
  bool compress = false, keepRunning = false;  ///< save
};
inline constexpr std::uint32_t kMaxGraceSeconds = 86400;

std::string_view toString(RequestKind kind);

/// A line that is no request: what to answer, and to which id.
struct BadRequest {
  std::uint64_t id = 0;
  Error error;
};

/// A line that says how far a request has come; parseProgress() is true for one.
std::string formatProgress(std::uint64_t id, std::uint64_t done, std::uint64_t total);
bool parseProgress(std::string_view line, std::uint64_t& done, std::uint64_t& total);

/// Parses a line (without its newline). The bytes come from whoever can open the socket: anything goes.
std::variant<Request, BadRequest> parseRequest(std::string_view line);

/// Lines to send, with their newline.
std::string formatRequest(const Request& request);
std::string formatResult(std::uint64_t id, Json result);
std::string formatError(std::uint64_t id, const Error& error);

/// The result of a reply line, or the error that it carries. Errors also: corrupt.
Result<Json> parseReply(std::string_view line);

}  // namespace lodge::control
