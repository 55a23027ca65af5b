// SPDX-License-Identifier: Apache-2.0
#include "control/control_connection.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>

#include "base/text.h"
#include "control/control_server.h"

namespace lodge::control {

namespace {
/// A client that reads its answers never comes near; one that does not is cut off.
constexpr std::size_t kMaxQueuedReplies = 1_MiB;
/// Console output that a slow client may lag behind before it loses some.
constexpr std::size_t kMaxQueuedOutput = 512_KiB;
constexpr std::size_t kMaxWaits = 16;
}  // namespace

ControlConnection::ControlConnection(ControlServer& server, std::uint64_t id, UniqueFd fd)
    : server_(server), id_(id), fd_(std::move(fd)) {}

ControlConnection::~ControlConnection() {
  server_.hub().remove(*this);
  if (fd_) server_.loop().unwatch(fd_.get());
}

void ControlConnection::start() {
  watch();
}

void ControlConnection::watch() {
  if (closed_) return;
  // While the guest does not take what the client typed, more is not read: the client's own writes wait.
  std::uint32_t events = (input_.empty() ? EPOLLIN : 0u) | (out_.empty() ? 0u : EPOLLOUT);
  Status watched = server_.loop().watch(fd_.get(), events, [this](std::uint32_t ready) { this->ready(ready); });
  if (!watched) close();
}

void ControlConnection::close() {
  if (closed_) return;
  closed_ = true;
  server_.loop().unwatch(fd_.get());
  server_.hub().remove(*this);
  server_.remove(id_);
}

void ControlConnection::ready(std::uint32_t events) {
  if (events & EPOLLOUT) flush();
  if (!closed_ && (events & EPOLLIN)) return receive();
  if (!closed_ && (events & (EPOLLHUP | EPOLLERR))) close();
}

void ControlConnection::receive() {
  std::array<char, 16384> buffer;
  ssize_t n = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) return close();
  received(std::string_view(buffer.data(), static_cast<std::size_t>(n)));
  if (!closed_) watch();
}

void ControlConnection::received(std::string_view bytes) {
  if (!attached_) {
    lines_.add(bytes);
    while (!attached_ && !closed_) {
      auto line = lines_.next();
      if (!line) break;
      serve(*line);
    }
    if (!attached_ && lines_.tooLong()) {
      send(formatError(0, Error(ErrorKind::invalidArgument, fmt::format("a line is over {} bytes", kMaxLineLength))));
      return close();
    }
    if (!attached_ || closed_) return;
    frames_.add(lines_.takeRest());
  } else {
    frames_.add(bytes);
  }
  serveFrames();
}

void ControlConnection::serve(std::string_view line) {
  auto parsed = parseRequest(line);
  if (auto* bad = std::get_if<BadRequest>(&parsed)) return send(formatError(bad->id, bad->error));
  const Request& request = std::get<Request>(parsed);
  MachineSession& session = server_.session();
  if (session.end() && request.kind != RequestKind::state && request.kind != RequestKind::stats &&
      request.kind != RequestKind::wait) {
    return send(formatError(request.id, Error(ErrorKind::notFound, "the machine has ended")));
  }
  serve(request);
}

void ControlConnection::serve(const Request& request) {
  // Who gave up on a machine that did not answer was told that nothing happens.
  bool hasLimit = request.kind == RequestKind::save || request.kind == RequestKind::switchEngine;
  if (hasLimit && hasHungUp()) return close();
  MachineSession& session = server_.session();
  Json result = Json::object();
  switch (request.kind) {
    case RequestKind::state:
      result = session.describe();
      break;
    case RequestKind::stats:
      result = session.statistics();
      break;
    case RequestKind::powerButton:
      session.powerButton();
      break;
    case RequestKind::reset:
      session.reset();
      break;
    case RequestKind::pause:
      session.pause();
      break;
    case RequestKind::resume:
      session.resume();
      break;
    case RequestKind::stop:
      session.stop(request.graceSeconds);
      break;
    case RequestKind::quit:
      session.quit();
      break;
    case RequestKind::consoleAttach:
      return attach(request);
    case RequestKind::screenshot:
      if (Status done = session.screenshot(request.text); !done) return send(formatError(request.id, done.error()));
      break;
    case RequestKind::sendKeys:
      if (Status done = session.sendKeys(request.text); !done) return send(formatError(request.id, done.error()));
      break;
    case RequestKind::save:
      if (Status done = save(request); !done) return send(formatError(request.id, done.error()));
      break;
    case RequestKind::switchEngine:
      if (Status done = session.switchEngine(request.text); !done) return send(formatError(request.id, done.error()));
      result = {{"engine", session.describe()["engine"]}};
      break;
    case RequestKind::describeCode:
      if (auto text = session.describeCode(request.text); text)
        result = {{"text", std::move(*text)}};
      else
        return send(formatError(request.id, text.error()));
      break;
    case RequestKind::typeText:
      if (Status done = session.typeText(request.text); !done) return send(formatError(request.id, done.error()));
      break;
    case RequestKind::clipboard:
      if (auto text = session.clipboardText(); text)
        result = {{"text", std::move(*text)}};
      else
        return send(formatError(request.id, text.error()));
      break;
    case RequestKind::setClipboard:
      if (Status done = session.setClipboard(request.text); !done) return send(formatError(request.id, done.error()));
      break;
    case RequestKind::changeMedium: {
      MediumChange change{request.drive, request.text, request.readOnly, request.force};
      if (Status done = session.changeMedium(change); !done) return send(formatError(request.id, done.error()));
      break;
    }
    case RequestKind::wait:
      if (waiting_.size() >= kMaxWaits) {
        return send(formatError(request.id, Error(ErrorKind::busy, "too many wait requests on one connection")));
      }
      waiting_.push_back(request.id);
      if (session.end()) machineEnded(*session.end());
      return;
  }
  send(formatResult(request.id, std::move(result)));
}

bool ControlConnection::hasHungUp() const {
  pollfd entry{fd_.get(), 0, 0};
  return ::poll(&entry, 1, 0) > 0 && (entry.revents & (POLLHUP | POLLERR)) != 0;
}

Status ControlConnection::save(const Request& request) {
  Machine::SaveRequest save{
      .path = request.text,
      .compress = request.compress,
      .keepRunning = request.keepRunning,
      .progress = [&](std::uint64_t done, std::uint64_t total) { send(formatProgress(request.id, done, total)); }};
  return server_.session().save(save);
}

void ControlConnection::attach(const Request& request) {
  send(formatResult(request.id, Json::object()));
  attached_ = true;
  server_.hub().setWindow(request.window);
  send(formatFrames(FrameKind::output, server_.hub().recent()));
  server_.hub().add(*this);
}

void ControlConnection::machineEnded(const EndRecord& record) {
  for (std::uint64_t id : waiting_) send(formatResult(id, record.toJson()));
  waiting_.clear();
  if (!attached_) return;
  server_.hub().flush();
  if (skipped_ != 0) send(formatSkipped(std::exchange(skipped_, 0)));
  send(formatFrames(FrameKind::end, record.toJson().dump()));
}

void ControlConnection::serveFrames() {
  while (auto frame = frames_.next()) {
    if (auto window = parseWindow(*frame)) server_.hub().setWindow(*window);
    if (frame->kind == FrameKind::input) input_ += frame->payload;
  }
  offerInput();
}

void ControlConnection::offerInput() {
  if (!input_.empty()) input_.erase(0, server_.hub().input(input_));
}

void ControlConnection::consoleRoom() {
  bool waited = !input_.empty();
  offerInput();
  if (waited && input_.empty() && !closed_) watch();
}

void ControlConnection::consoleOutput(std::string_view bytes) {
  if (skipped_ != 0 || out_.size() > kMaxQueuedOutput) {
    skipped_ += bytes.size();
  } else {
    send(formatFrames(FrameKind::output, bytes));
  }
}

void ControlConnection::send(std::string_view bytes) {
  if (closed_) return;
  bool wasEmpty = out_.empty();
  out_ += bytes;
  if (wasEmpty) flush();
  if (!attached_ && out_.size() > kMaxQueuedReplies) close();
}

void ControlConnection::flush() {
  while (!out_.empty()) {
    ssize_t n = ::send(fd_.get(), out_.data(), out_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) break;
    if (n < 0) return close();
    out_.erase(0, static_cast<std::size_t>(n));
    if (out_.empty() && skipped_ != 0) out_ = formatSkipped(std::exchange(skipped_, 0));
  }
  watch();
}

void ControlConnection::finish(int milliseconds) {
  while (!closed_ && !out_.empty()) {
    flush();
    pollfd entry{fd_.get(), POLLOUT, 0};
    if (out_.empty() || ::poll(&entry, 1, milliseconds) <= 0) break;
  }
}

}  // namespace lodge::control
