// SPDX-License-Identifier: Apache-2.0
#include "control/protocol.h"

#include <array>
#include <variant>

#include "base/text.h"

namespace lodge::control {

namespace {

constexpr std::array kKinds = {
    RequestKind::state,        RequestKind::powerButton,   RequestKind::reset,        RequestKind::pause,
    RequestKind::resume,       RequestKind::stop,          RequestKind::quit,         RequestKind::stats,
    RequestKind::wait,         RequestKind::consoleAttach, RequestKind::screenshot,   RequestKind::sendKeys,
    RequestKind::typeText,     RequestKind::changeMedium,  RequestKind::describeCode, RequestKind::clipboard,
    RequestKind::setClipboard, RequestKind::switchEngine,  RequestKind::save};

constexpr std::array kErrorKinds = {ErrorKind::invalidArgument,  ErrorKind::notFound, ErrorKind::alreadyExists,
                                    ErrorKind::permissionDenied, ErrorKind::busy,     ErrorKind::corrupt,
                                    ErrorKind::unsupported,      ErrorKind::io,       ErrorKind::outOfMemory,
                                    ErrorKind::interrupted,      ErrorKind::internal};

ErrorKind errorKindOf(std::string_view name) {
  for (ErrorKind kind : kErrorKinds) {
    if (toString(kind) == name) return kind;
  }
  return ErrorKind::internal;
}

std::optional<RequestKind> requestKindOf(std::string_view name) {
  for (RequestKind kind : kKinds) {
    if (toString(kind) == name) return kind;
  }
  return std::nullopt;
}

/// Reads an optional number up to `max` into `out`. False if it is there and no such number.
template <class T>
bool readOptional(const Json& json, const char* key, std::uint64_t max, T& out) {
  if (!json.contains(key)) return true;
  auto value = numberField(json, key);
  if (!value || *value > max) return false;
  out = static_cast<T>(*value);
  return true;
}

Error badValue(const char* key, std::uint64_t max) {
  return Error(ErrorKind::invalidArgument, fmt::format("\"{}\" must be a number from 0 to {}", key, max));
}

bool needsText(RequestKind kind) {
  return kind == RequestKind::screenshot || kind == RequestKind::sendKeys || kind == RequestKind::typeText ||
         kind == RequestKind::describeCode || kind == RequestKind::changeMedium || kind == RequestKind::setClipboard ||
         kind == RequestKind::switchEngine || kind == RequestKind::save;
}

/// A person's or another program's input may hold anything: echoed in errors, it is cut short.
std::string shortened(std::string_view text) {
  return inQuotes(text.substr(0, 40));
}

}  // namespace

std::string_view toString(RequestKind kind) {
  switch (kind) {
    case RequestKind::state:
      return "state";
    case RequestKind::powerButton:
      return "powerButton";
    case RequestKind::reset:
      return "reset";
    case RequestKind::pause:
      return "pause";
    case RequestKind::resume:
      return "resume";
    case RequestKind::stop:
      return "stop";
    case RequestKind::quit:
      return "quit";
    case RequestKind::stats:
      return "stats";
    case RequestKind::wait:
      return "wait";
    case RequestKind::consoleAttach:
      return "consoleAttach";
    case RequestKind::screenshot:
      return "screenshot";
    case RequestKind::sendKeys:
      return "sendKeys";
    case RequestKind::typeText:
      return "typeText";
    case RequestKind::describeCode:
      return "describeCode";
    case RequestKind::changeMedium:
      return "changeMedium";
    case RequestKind::save:
      return "save";
    case RequestKind::switchEngine:
      return "switchEngine";
    case RequestKind::clipboard:
      return "clipboard";
    case RequestKind::setClipboard:
      return "setClipboard";
  }
  return "state";
}

std::variant<Request, BadRequest> parseRequest(std::string_view line) {
  Json json = parseJson(line);
  if (!json.is_object()) return BadRequest{0, Error(ErrorKind::corrupt, "a request must be a JSON object on one line")};
  Request request;
  if (!readOptional(json, "id", UINT64_MAX, request.id)) return BadRequest{0, badValue("id", UINT64_MAX)};
  std::uint64_t version = kProtocolVersion;
  if (!readOptional(json, "version", UINT64_MAX, version))
    return BadRequest{request.id, badValue("version", UINT64_MAX)};
  if (version > kProtocolVersion) {
    return BadRequest{request.id,
                      Error(ErrorKind::unsupported, fmt::format("this machine speaks version {} of the control "
                                                                "protocol, not {}",
                                                                kProtocolVersion, version))
                          .withHint("use the lodge program that started the machine")};
  }
  auto name = stringField(json, "request");
  if (!name) return BadRequest{request.id, Error(ErrorKind::invalidArgument, "\"request\" must name a request")};
  auto kind = requestKindOf(*name);
  if (!kind) return BadRequest{request.id, Error(ErrorKind::unsupported, "there is no request " + shortened(*name))};
  request.kind = *kind;
  if (!readOptional(json, "columns", UINT16_MAX, request.window.columns)) {
    return BadRequest{request.id, badValue("columns", UINT16_MAX)};
  }
  if (!readOptional(json, "rows", UINT16_MAX, request.window.rows))
    return BadRequest{request.id, badValue("rows", UINT16_MAX)};
  if (!readOptional(json, "graceSeconds", kMaxGraceSeconds, request.graceSeconds)) {
    return BadRequest{request.id, badValue("graceSeconds", kMaxGraceSeconds)};
  }
  if (needsText(request.kind)) {
    auto text = stringField(json, "text");
    if (!text) return BadRequest{request.id, Error(ErrorKind::invalidArgument, "\"text\" must be a string")};
    request.text = std::move(*text);
  }
  if (request.kind == RequestKind::changeMedium) {
    request.drive = stringField(json, "drive").value_or("");
    request.readOnly = boolField(json, "readonly").value_or(false);
    request.force = boolField(json, "force").value_or(false);
  }
  if (request.kind == RequestKind::save) {
    request.compress = boolField(json, "compress").value_or(false);
    request.keepRunning = boolField(json, "keepRunning").value_or(false);
  }
  return request;
}

std::string formatProgress(std::uint64_t id, std::uint64_t done, std::uint64_t total) {
  return toLine({{"id", id}, {"progress", {{"done", done}, {"total", total}}}});
}

bool parseProgress(std::string_view line, std::uint64_t& done, std::uint64_t& total) {
  Json json = parseJson(line);
  if (!json.is_object() || !json.contains("progress")) return false;
  done = numberField(json["progress"], "done").value_or(0);
  total = numberField(json["progress"], "total").value_or(0);
  return true;
}

std::string formatRequest(const Request& request) {
  Json json = {{"version", kProtocolVersion}, {"id", request.id}, {"request", toString(request.kind)}};
  if (needsText(request.kind)) json["text"] = request.text;
  if (request.kind == RequestKind::stop) json["graceSeconds"] = request.graceSeconds;
  if (request.kind == RequestKind::consoleAttach) {
    json["columns"] = request.window.columns;
    json["rows"] = request.window.rows;
  }
  if (request.kind == RequestKind::changeMedium) {
    json["drive"] = request.drive;
    json["readonly"] = request.readOnly;
    json["force"] = request.force;
  }
  if (request.kind == RequestKind::save) {
    json["compress"] = request.compress;
    json["keepRunning"] = request.keepRunning;
  }
  return toLine(json);
}

std::string formatResult(std::uint64_t id, Json result) {
  return toLine({{"id", id}, {"ok", true}, {"result", std::move(result)}});
}

std::string formatError(std::uint64_t id, const Error& error) {
  Json body = {{"kind", toString(error.kind())}, {"message", error.message()}};
  if (!error.hint().empty()) body["hint"] = error.hint();
  return toLine({{"id", id}, {"ok", false}, {"error", std::move(body)}});
}

Result<Json> parseReply(std::string_view line) {
  Json json = parseJson(line);
  auto ok = boolField(json, "ok");
  if (ok == true && json.contains("result")) return json["result"];
  if (ok == false && json.contains("error")) {
    const Json& body = json["error"];
    auto kind = stringField(body, "kind");
    auto message = stringField(body, "message");
    if (kind && message) {
      return Error(errorKindOf(*kind), *message).withHint(stringField(body, "hint").value_or(""));
    }
  }
  return Error(ErrorKind::corrupt, "the machine's answer makes no sense");
}

}  // namespace lodge::control
