// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

namespace lodge {

/// What kind of failure it was: for control flow, exit codes and the API's typed code.
enum class ErrorKind : unsigned char {
  invalidArgument,  ///< the user asked for something that makes no sense
  notFound,
  alreadyExists,
  permissionDenied,
  busy,         ///< locked or in use by somebody else
  corrupt,      ///< a file or a message breaks its format's rules
  unsupported,  ///< right, but Lodge does not do it (here)
  io,           ///< the host failed a read, write or other system call
  outOfMemory,
  interrupted,
  internal,
};

/// The kind's stable name, as the API prints it ("invalid-argument").
std::string_view toString(ErrorKind kind);

/// A failure: kind, what it happened on, and what caused it. Each layer adds the one noun that it knows:
///   return Error(std::move(cause)).context("open disk 'a.raw'");
/// `message()` prints the chain: "open disk 'a.raw': permission denied".
class [[nodiscard]] Error {
 public:
  Error(ErrorKind kind, std::string text) : kind_(kind), text_(std::move(text)) {}

  /// From a system call's errno value; the kind follows from it. `what` names the call's object: "open '/x'".
  static Error fromErrno(int errnoValue, std::string what);

  ErrorKind kind() const { return kind_; }
  /// The chain, outermost context first, joined with ": ".
  const std::string& message() const { return text_; }
  /// What the user can do about it; empty if nothing is known.
  const std::string& hint() const { return hint_; }

  Error&& context(std::string_view what) && {
    text_ = std::string(what) + ": " + text_;
    return std::move(*this);
  }
  Error&& withHint(std::string hint) && {
    hint_ = std::move(hint);
    return std::move(*this);
  }

 private:
  ErrorKind kind_;
  std::string text_;
  std::string hint_;
};

/// A value or an Error. (std::expected is not visible to clang 14, which runs the checks and the fuzzers.)
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT(google-explicit-constructor)
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT(google-explicit-constructor)

  explicit operator bool() const { return state_.index() == 0; }
  bool ok() const { return state_.index() == 0; }
  T& operator*() & { return std::get<0>(state_); }
  const T& operator*() const& { return std::get<0>(state_); }
  T&& operator*() && { return std::get<0>(std::move(state_)); }
  T* operator->() { return &std::get<0>(state_); }
  const T* operator->() const { return &std::get<0>(state_); }
  Error& error() & { return std::get<1>(state_); }
  const Error& error() const& { return std::get<1>(state_); }
  Error&& error() && { return std::get<1>(std::move(state_)); }

 private:
  std::variant<T, Error> state_;
};

/// Success or an Error.
template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT(google-explicit-constructor)

  explicit operator bool() const { return !error_; }
  bool ok() const { return !error_; }
  Error& error() & { return *error_; }
  const Error& error() const& { return *error_; }
  Error&& error() && { return *std::move(error_); }

 private:
  std::optional<Error> error_;
};

using Status = Result<void>;

}  // namespace lodge
