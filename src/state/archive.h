// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/error.h"

namespace lodge::state {

/// The fields of one section, on their way out or in: the same function saves and loads.
///   void transfer(Archive& a, Chip& chip) {
///     a(chip.mask, chip.base);
///     a.require(chip.base % 8 == 0, "vector base");
///   }
/// Numbers are little-endian and as wide as their type, booleans a byte. What is loaded comes from a file that anybody
/// may have made: a field that breaks its rules makes the archive fail, and from then on everything loads as zero.
class Archive {
 public:
  /// To save, as of `version`.
  explicit Archive(std::uint16_t version = 1) : version_(version) {}
  /// To load what an archive of `version` saved.
  Archive(std::span<const std::byte> from, std::uint16_t version) : loading_(true), from_(from), version_(version) {}

  bool loading() const { return loading_; }
  bool ok() const { return problem_.empty(); }
  /// Loading, and nothing was wrong so far: what was loaded may be put to use.
  bool mayApply() const { return loading_ && ok(); }
  /// Of the section.
  std::uint16_t version() const { return version_; }

  template <class... T>
  void operator()(T&... fields) {
    (field(fields), ...);
  }
  /// Loading: fails unless `condition`. Saving: nothing.
  void require(bool condition, std::string_view what) {
    if (loading_ && !condition) fail(what);
  }
  void fail(std::string_view what) {
    if (problem_.empty()) problem_ = what;
  }
  void bytes(std::span<std::byte> data);
  /// A number of elements up to `most`; 0 after a failure.
  std::size_t count(std::size_t number, std::size_t most, std::string_view what);

  /// What went wrong first; also bytes that are left over.
  Status finish() const;
  const std::vector<std::byte>& saved() const { return to_; }

 private:
  void integer(std::uint64_t& value, unsigned size);

  template <class T>
  void field(T& value) {
    if constexpr (std::is_same_v<T, bool>) {
      std::uint64_t raw = value ? 1 : 0;
      integer(raw, 1);
      require(raw <= 1, "a flag that is neither on nor off");
      value = raw == 1;
    } else if constexpr (std::is_enum_v<T> || std::is_integral_v<T>) {
      std::uint64_t raw = static_cast<std::uint64_t>(value);
      integer(raw, sizeof(T));
      value = static_cast<T>(raw);
    } else {
      compound(value);
    }
  }
  template <class T>
  void compound(std::atomic<T>& value) {
    T copy = value.load();
    field(copy);
    if (loading_) value.store(copy);
  }
  template <class T, std::size_t N>
  void compound(std::array<T, N>& values) {
    for (T& value : values) field(value);
  }
  template <class T, std::size_t N>
  void compound(T (&values)[N]) {
    for (T& value : values) field(value);
  }
  template <class T>
  void compound(std::optional<T>& value) {
    bool there = value.has_value();
    field(there);
    if (loading_) value = there ? std::optional<T>(T{}) : std::nullopt;
    if (value) field(*value);
  }
  void compound(std::string& text);
  void compound(std::vector<std::uint8_t>& data);
  void compound(std::vector<std::string>& texts);

  static constexpr std::size_t kMostText = 1 << 20;

  bool loading_ = false;
  std::span<const std::byte> from_;
  std::uint16_t version_;
  std::vector<std::byte> to_;
  std::string problem_;
};

}  // namespace lodge::state
