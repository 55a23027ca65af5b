// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "machine/config.h"

namespace lodge {

/// The file behind a flash chip: what it holds at the start, and where changes go. Used by one vCPU at a time (the
/// chip's lock).
class FlashFile {
 public:
  /// Makes the file first where it is missing and there is something to copy. Errors: notFound, permissionDenied, busy
  /// (another machine has it), invalidArgument (not a flash image's size), io.
  static Result<std::unique_ptr<FlashFile>> open(const FlashConfig& config);

  /// The chip's contents at the machine's start; a multiple of 4 KiB, 16 MiB at most.
  std::vector<std::byte> takeContents() { return std::move(contents_); }
  std::uint64_t bytes() const { return bytes_; }
  bool readOnly() const { return readOnly_; }
  /// Writes a change to the file, if the file is to have it. A failure is logged once: the guest cannot be told.
  void store(std::uint64_t offset, std::span<const std::byte> bytes);

 private:
  FlashFile() = default;

  std::string path_;
  UniqueFd file_;  ///< where changes go; none: nowhere
  std::vector<std::byte> contents_;
  std::uint64_t bytes_ = 0;
  bool readOnly_ = false, failed_ = false;
};

/// The chips of a pc board, the one that ends at 4 GiB first; none where a plain image is its firmware. UEFI firmware
/// is what the package `ovmf` installs.
std::vector<FlashConfig> flashChips(const MachineConfig& config);

}  // namespace lodge
