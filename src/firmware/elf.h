// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "firmware/image_file.h"

namespace lodge::firmware {

struct LoadContext;

/// A PT_LOAD program header (System V ABI, "Program Header").
struct ElfSegment {
  std::uint64_t offset, fileSize;
  std::uint64_t virtualAddress, physicalAddress, memorySize;
};

/// What a loader needs of an ELF32 or ELF64 executable for x86, checked against the file's size.
struct ElfImage {
  bool is64 = false;
  std::uint64_t entry = 0;  ///< as the header gives it
  std::vector<ElfSegment> segments;
  std::optional<std::uint64_t> pvhEntry;  ///< XEN_ELFNOTE_PHYS32_ENTRY
  bool isLinux = false;                   ///< by its notes

  /// `entry` as a physical address: translated if it lies in a segment's virtual range.
  std::uint64_t physicalEntry() const;
  /// Whether `address` lies in some segment's physical range.
  bool covers(std::uint64_t address) const;
  /// One past the last physical byte of any segment.
  std::uint64_t end() const;
};

bool isElf(std::span<const std::byte> head);

/// Errors: corrupt (truncated, impossible tables), unsupported (not x86), io.
Result<ElfImage> parseElf(const ImageFile& file);

/// Copies the segments to their physical addresses and clears their rest. Errors: corrupt (overlapping segments),
/// invalidArgument (not in usable guest RAM), io.
Status loadElfSegments(LoadContext& context, const ElfImage& elf);

}  // namespace lodge::firmware
