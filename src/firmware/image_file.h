// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "memory/guest_memory.h"

namespace lodge::firmware {

/// A kernel, initrd or module, read in place: a regular file stays open and is read again at each reset of the machine
/// (read, not mapped: a file that somebody truncates gives an error, not a signal); what cannot be read twice, such as
/// a pipe, is kept in memory. Immutable; any thread.
class ImageFile {
 public:
  /// Errors: notFound, permissionDenied, invalidArgument (a directory, a pipe of more than 1 GiB), io.
  static Result<std::shared_ptr<const ImageFile>> open(const std::string& path);
  /// For tests: the bytes as if they were the file `name`.
  static std::shared_ptr<const ImageFile> fromBytes(std::string name, std::vector<std::byte> bytes);

  const std::string& name() const { return name_; }
  /// Bytes, when it was opened.
  std::uint64_t size() const { return size_; }
  /// Fills `to` from `offset`. Errors: corrupt (the file ends before), io.
  Status read(std::uint64_t offset, std::span<std::byte> to) const;
  template <class T>
  Status readObject(std::uint64_t offset, T& to) const {
    return read(offset, std::as_writable_bytes(std::span<T, 1>(&to, 1)));
  }
  /// The first bytes, at most `limit`. Errors: io.
  Result<std::vector<std::byte>> head(std::uint64_t limit) const;
  /// Copies [offset, offset + length) to guest RAM, which must hold it in one piece. Errors: as read().
  Status load(std::uint64_t offset, std::uint64_t length, GuestMemory& memory, Gpa to) const;

 private:
  ImageFile(std::string name, UniqueFd fd, std::uint64_t size)
      : name_(std::move(name)), fd_(std::move(fd)), size_(size) {}

  std::string name_;
  UniqueFd fd_;
  std::uint64_t size_;
  std::vector<std::byte> bytes_;  // if there is no fd_
};

/// Makes [gpa, gpa + length) read as zero, without taking host memory for whole pages. False outside RAM.
[[nodiscard]] bool zeroGuest(GuestMemory& memory, Gpa gpa, std::uint64_t length);

}  // namespace lodge::firmware
