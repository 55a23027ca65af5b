// SPDX-License-Identifier: Apache-2.0
#include "network/lease_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <ctime>

#include "base/file.h"
#include "base/log.h"

namespace lodge::network {

namespace {

constexpr std::uint64_t kLargest = 4 << 20;
constexpr Nanoseconds kSoon = kNanosecondsPerSecond / 10;

}  // namespace

LeaseFile::LeaseFile(EventLoop& loop, Network& network, std::string path)
    : loop_(loop), network_(network), path_(std::move(path)) {
  restore();
  soon_ = loop_.makeTimer([this] { write(); });
  network_.onLease([this] { soon_->arm(loop_.clock().now() + kSoon); });
}

LeaseFile::~LeaseFile() {
  network_.onLease({});
  ::unlink(path_.c_str());
}

/// The file says how long each lease had when it was written, and when that was.
void LeaseFile::restore() {
  auto bytes = readFile(path_, kLargest);
  if (!bytes) return;
  auto* text = reinterpret_cast<const char*>(bytes->data());
  Json json = Json::parse(text, text + bytes->size(), nullptr, false);
  if (!json.is_object() || !json.contains("written") || !json["written"].is_number_integer()) return;
  std::int64_t age = static_cast<std::int64_t>(std::time(nullptr)) - json["written"].get<std::int64_t>();
  Json leases = json.value("leases", Json::array());
  if (age < 0 || !leases.is_array()) return;
  for (Json& lease : leases) {
    if (!lease.is_object() || !lease.contains("secondsLeft") || !lease["secondsLeft"].is_number_integer()) continue;
    lease["secondsLeft"] = lease["secondsLeft"].get<std::int64_t>() - std::min<std::int64_t>(age, 1 << 20);
  }
  network_.restoreLeases(leases);
}

void LeaseFile::write() const {
  Json json = {{"written", static_cast<std::int64_t>(std::time(nullptr))}, {"leases", network_.leases()}};
  std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace), fresh = path_ + ".new";
  UniqueFd file(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  bool whole = file && ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
  if (!whole || std::rename(fresh.c_str(), path_.c_str()) != 0)
    log(LogLevel::warning, "the leases cannot be kept in {}", path_);
}

}  // namespace lodge::network
