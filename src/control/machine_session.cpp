// SPDX-License-Identifier: Apache-2.0
#include "control/machine_session.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>

#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "control/protocol.h"

namespace lodge::control {

namespace {

constexpr Nanoseconds kQuitLimit = 10 * kNanosecondsPerSecond;

std::uint64_t microseconds(const timeval& time) {
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000 + static_cast<std::uint64_t>(time.tv_usec);
}

/// Resident set and its anonymous part in bytes from /proc/self/status (proc(5)), which counts in KiB.
void addMemory(Json& counters) {
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen("/proc/self/status", "re"), std::fclose);
  char line[256];
  while (file && std::fgets(line, sizeof line, file.get())) {
    unsigned long long kib = 0;
    if (std::sscanf(line, "VmRSS: %llu", &kib) == 1) counters["process.residentBytes"] = kib * 1024;
    if (std::sscanf(line, "RssAnon: %llu", &kib) == 1) counters["process.anonymousBytes"] = kib * 1024;
    if (std::sscanf(line, "Threads: %llu", &kib) == 1) counters["process.threads"] = kib;
  }
}

}  // namespace

MachineSession::MachineSession(EventLoop& loop, Machine& machine, MachineConfig config)
    : loop_(loop),
      machine_(machine),
      config_(std::move(config)),
      graceTimer_(loop.makeTimer([this] {
        log(LogLevel::info, "the guest did not power off in time: turning the machine off");
        quit();
      })),
      quitTimer_(loop.makeTimer([this] {
        log(LogLevel::warning, "the machine did not end when told to: giving up on it");
        forced_ = true;
        ended({MachineEnd::killed, 0, ::time(nullptr)});
      })),
      started_(loop.clock().now()) {
  machine_.onEnd([this](MachineEnd end, int status) { ended({end, status, ::time(nullptr)}); });
}

void MachineSession::powerButton() {
  if (!end_) machine_.powerButton();
}

void MachineSession::reset() {
  if (end_) return;
  pausedByUser_ = false;
  machine_.reset();
  applyPause();
}

void MachineSession::pause() {
  pausedByUser_ = true;
  applyPause();
}

void MachineSession::resume() {
  pausedByUser_ = false;
  applyPause();
}

void MachineSession::holdForConsole(bool hold) {
  heldForConsole_ = hold;
  applyPause();
}

void MachineSession::applyPause() {
  // Asked, not remembered: the machine may have ended meanwhile.
  bool wanted = pausedByUser_ || heldForConsole_;
  if (wanted && machine_.state() == Machine::State::running) machine_.pause();
  if (!wanted && machine_.state() == Machine::State::paused) machine_.resume();
}

Result<Display*> MachineSession::display() {
  if (Display* display = machine_.display()) return display;
  return Error(ErrorKind::unsupported, "the machine has no display").withHint("start it with --board pc");
}

Status MachineSession::screenshot(const std::string& path) {
  auto shown = display();
  if (!shown) return std::move(shown).error();
  if (!path.starts_with("/")) return Error(ErrorKind::invalidArgument, "the path of a picture must be absolute");
  (*shown)->refresh();
  Screen picture = (*shown)->screen();
  if (const Cursor* cursor = (*shown)->cursor()) drawCursor(picture, *cursor);
  std::string png = encodePng(picture);
  UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0666));
  if (!file) return Error::fromErrno(errno, "create " + inQuotes(path));
  for (std::size_t done = 0; done < png.size();) {
    ssize_t n = ::write(file.get(), png.data() + done, png.size() - done);
    if (n <= 0) return Error::fromErrno(n == 0 ? EIO : errno, "write " + inQuotes(path));
    done += static_cast<std::size_t>(n);
  }
  return {};
}

Status MachineSession::press(const std::vector<KeyEvent>& events) {
  auto shown = display();
  if (!shown) return std::move(shown).error();
  if (!typist_) typist_ = std::make_unique<Typist>(loop_, **shown);
  return typist_->type(events);
}

Status MachineSession::sendKeys(std::string_view keys) {
  std::vector<KeyEvent> all;
  for (std::string_view name : split(keys, ' ')) {
    if (name.empty()) continue;
    auto events = keysNamed(name);
    if (!events) return std::move(events).error();
    all.insert(all.end(), events->begin(), events->end());
  }
  return press(all);
}

Result<std::string> MachineSession::describeCode(std::string_view address) const {
  auto linear = parseNumber(address);
  if (!linear) {
    return Error(ErrorKind::invalidArgument, inQuotes(address) + " is no address")
        .withHint("write it as 0x and hexadecimal digits");
  }
  return machine_.describeCode(*linear);
}

Status MachineSession::typeText(std::string_view text) {
  auto events = keysTyping(text);
  if (!events) return std::move(events).error();
  return press(*events);
}

Result<std::string> MachineSession::clipboardText() {
  auto shown = display();
  if (!shown) return std::move(shown).error();
  return (*shown)->clipboard().text();
}

Status MachineSession::setClipboard(const std::string& text) {
  auto shown = display();
  if (!shown) return std::move(shown).error();
  if ((*shown)->clipboard().set(text)) return {};
  return Error(ErrorKind::invalidArgument, "the text is too long for the clipboard")
      .withHint(fmt::format("{} bytes are the most", Clipboard::kMostBytes));
}

Status MachineSession::changeMedium(const MediumChange& change) {
  if (!change.path.empty() && !change.path.starts_with("/"))
    return Error(ErrorKind::invalidArgument, "the path of a medium must be absolute");
  return machine_.changeMedium(change);
}

Status MachineSession::save(const Machine::SaveRequest& request) {
  if (!request.path.starts_with("/"))
    return Error(ErrorKind::invalidArgument, "the path of a state file must be absolute");
  return machine_.save(request);
}

void MachineSession::stop(std::uint32_t graceSeconds) {
  if (end_) return;
  stopping_ = true;
  resume();  // a guest that stands still cannot power off
  machine_.powerButton();
  graceTimer_->arm(loop_.clock().now() + graceSeconds * kNanosecondsPerSecond);
}

void MachineSession::quit() {
  if (end_) return;
  stopping_ = true;
  quitTimer_->arm(loop_.clock().now() + kQuitLimit);
  machine_.quit();
}

void MachineSession::ended(const EndRecord& record) {
  if (end_) return;
  end_ = record;
  graceTimer_->cancel();
  quitTimer_->cancel();
  auto callbacks = std::move(endCallbacks_);
  for (auto& callback : callbacks) callback(record);
}

void MachineSession::onEnd(std::function<void(const EndRecord&)> callback) {
  if (end_) return callback(*end_);
  endCallbacks_.push_back(std::move(callback));
}

std::string_view MachineSession::stateName() const {
  if (end_) return "ended";
  if (stopping_) return "stopping";
  if (pausedByUser_) return "paused";
  return heldForConsole_ ? "blocked" : "running";
}

Json MachineSession::describe() const {
  return {{"protocol", kProtocolVersion},
          {"name", config_.name},
          {"state", stateName()},
          {"engine", machine_.engineName()},
          {"cpus", config_.cpus},
          {"memory", config_.memory},
          {"uptimeSeconds", (loop_.clock().now() - started_) / kNanosecondsPerSecond},
          {"pid", ::getpid()}};
}

Json MachineSession::statistics() const {
  Json counters = Json::object();
  for (const auto& [name, value] : machine_.statistics()) counters[name] = value;
  rusage usage{};
  if (::getrusage(RUSAGE_SELF, &usage) == 0) {
    counters["process.userMicroseconds"] = microseconds(usage.ru_utime);
    counters["process.systemMicroseconds"] = microseconds(usage.ru_stime);
  }
  addMemory(counters);
  counters["uptimeMilliseconds"] = (loop_.clock().now() - started_) / 1'000'000;
  return {{"counters", std::move(counters)}};
}

}  // namespace lodge::control
