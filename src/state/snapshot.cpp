// SPDX-License-Identifier: Apache-2.0
#include "state/snapshot.h"

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/text.h"

namespace lodge::state {

namespace {

/// Takes bytes off the front; empty if there are not so many.
std::span<const std::byte> take(std::span<const std::byte>& from, std::size_t length) {
  if (length > from.size()) return {};
  auto front = from.first(length);
  from = from.subspan(length);
  return front;
}

template <class T>
bool takeNumber(std::span<const std::byte>& from, T& number) {
  auto bytes = take(from, sizeof(T));
  if (bytes.empty()) return false;
  number = loadLe<T>(bytes.data());
  return true;
}

template <class T>
void append(std::vector<std::byte>& to, T number) {
  to.resize(to.size() + sizeof(T));
  storeLe(to.data() + to.size() - sizeof(T), number);
}

Error damaged() {
  return Error(ErrorKind::corrupt, "the list of its parts is damaged");
}

}  // namespace

Result<Snapshot> Snapshot::parse(std::span<const std::byte> bytes) {
  Snapshot snapshot;
  snapshot.loading_ = true;
  while (!bytes.empty()) {
    auto start = bytes;
    std::uint8_t nameLength = 0;
    std::uint32_t length = 0, checksum = 0;
    Section section;
    if (!takeNumber(bytes, nameLength) || nameLength == 0) return damaged();
    auto name = take(bytes, nameLength);
    if (name.empty() || !takeNumber(bytes, section.version) || !takeNumber(bytes, length)) return damaged();
    if (length > bytes.size()) return damaged();
    section.fields = bytes.first(length);
    bytes = bytes.subspan(length);
    auto covered = start.first(start.size() - bytes.size());
    if (!takeNumber(bytes, checksum) || crc32c(covered) != checksum) return damaged();
    std::string text(reinterpret_cast<const char*>(name.data()), name.size());
    if (!snapshot.sections_.emplace(std::move(text), section).second) return damaged();
  }
  return snapshot;
}

void Snapshot::section(std::string_view name, std::uint16_t version, const std::function<void(Archive&)>& fields) {
  if (!status_) return;
  if (loading_) return load(name, version, fields);
  Archive archive(version);
  fields(archive);
  if (Status done = archive.finish(); !done) return fail(done.error().kind(), name, done.error().message());
  if (name.empty() || name.size() > 255 || !sections_.emplace(std::string(name), Section{}).second)
    return fail(ErrorKind::internal, name, "the name is taken");
  std::size_t start = to_.size();
  append(to_, static_cast<std::uint8_t>(name.size()));
  for (char c : name) to_.push_back(static_cast<std::byte>(c));
  append(to_, version);
  append(to_, static_cast<std::uint32_t>(archive.saved().size()));
  to_.insert(to_.end(), archive.saved().begin(), archive.saved().end());
  append(to_, crc32c(std::span(to_).subspan(start)));
}

void Snapshot::load(std::string_view name, std::uint16_t version, const std::function<void(Archive&)>& fields) {
  auto found = sections_.find(name);
  if (found == sections_.end()) return fail(ErrorKind::corrupt, name, "it is missing");
  Section& section = found->second;
  section.taken = true;
  if (section.version > version) {
    return fail(ErrorKind::unsupported, name,
                fmt::format("it has version {}, and this Lodge knows version {}", section.version, version));
  }
  Archive archive(section.fields, section.version);
  fields(archive);
  if (Status done = archive.finish(); !done) fail(done.error().kind(), name, done.error().message());
}

void Snapshot::fail(ErrorKind kind, std::string_view name, const std::string& what) {
  status_ = Error(kind, fmt::format("the state of {}: {}", inQuotes(name), what))
                .withHint(kind == ErrorKind::unsupported ? "restore it with the Lodge that saved it" : "");
}

Status Snapshot::finish() const {
  if (!status_ || !loading_) return status_;
  for (const auto& [name, section] : sections_) {
    if (section.taken) continue;
    return Error(ErrorKind::unsupported,
                 fmt::format("the state of {}: this Lodge knows no such part of a machine like this", inQuotes(name)))
        .withHint("restore it with the Lodge that saved it");
  }
  return {};
}

Result<std::vector<std::byte>> Snapshot::bytes() const {
  if (!status_) return Error(status_.error());
  return to_;
}

}  // namespace lodge::state
