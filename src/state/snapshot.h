// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "state/archive.h"

namespace lodge::state {

/// The state of a machine as named, versioned sections, each with a checksum (docs/state-format.md). The same calls of
/// section() in any order save and load it:
///   Snapshot saved;
///   saved.section("pic", 1, [&](Archive& a) { pic.transfer(a); });
///   auto loaded = Snapshot::parse(saved.bytes());
///   loaded->section("pic", 1, [&](Archive& a) { pic.transfer(a); });
///   Status done = loaded->finish();
class Snapshot {
 public:
  /// To save.
  Snapshot() = default;
  /// To load; `bytes` must outlive it. Errors: corrupt.
  static Result<Snapshot> parse(std::span<const std::byte> bytes);

  bool loading() const { return loading_; }
  /// One section. Loading: one that is missing, damaged or of a version above `version` makes the snapshot fail, and
  /// what follows is not called. A name is 1 to 255 bytes long, and used once.
  void section(std::string_view name, std::uint16_t version, const std::function<void(Archive&)>& fields);
  bool has(std::string_view name) const { return sections_.find(name) != sections_.end(); }
  /// What went wrong first: corrupt; unsupported (a newer version).
  const Status& status() const { return status_; }
  /// The same; loading: also a section that nobody asked for.
  Status finish() const;

  /// What was saved. Errors: status()'s.
  Result<std::vector<std::byte>> bytes() const;

 private:
  struct Section {
    std::uint16_t version = 0;
    std::span<const std::byte> fields;
    bool taken = false;
  };
  void load(std::string_view name, std::uint16_t version, const std::function<void(Archive&)>& fields);
  void fail(ErrorKind kind, std::string_view name, const std::string& what);

  bool loading_ = false;
  std::map<std::string, Section, std::less<>> sections_;
  std::vector<std::byte> to_;
  Status status_;
};

}  // namespace lodge::state
