// SPDX-License-Identifier: Apache-2.0
// What the loaders share; not for users of loader.h.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "firmware/loader.h"
#include "firmware/memory_map.h"
#include "firmware/placement.h"

namespace lodge::firmware {

/// One load in progress: where things go, and what is already there.
struct LoadContext {
  GuestMemory& memory;
  const BootRequest& request;
  std::vector<MemoryRange> map;
  Placement placement;
  std::uint64_t rsdp;   ///< guest-physical address of the ACPI root pointer
  ImageCopies* copies;  ///< what is copied later; null: nothing is

  const ImageFile& kernel() const { return *request.kernel; }
  const std::string& commandLine() const { return request.commandLine; }

  /// Copies all of [offset, offset + length) of a file to RAM, now or later. Errors: as ImageFile::load().
  Status copy(const ImageFile& file, std::uint64_t offset, std::uint64_t length, Gpa to);
  /// Puts boot information into free low RAM and returns its address. Errors: invalidArgument.
  Result<std::uint64_t> put(std::span<const std::byte> bytes, std::uint64_t alignment, std::string_view what);
  /// The same for a string and its terminating zero.
  Result<std::uint64_t> putString(std::string_view text, std::string_view what);
  /// Writes the flat GDT (boot_state.h) and returns its address.
  Result<std::uint64_t> putGdt(bool longMode);
};

/// A module in guest RAM.
struct LoadedModule {
  std::uint64_t base, length;
};

/// Copies each module to a page-aligned place of its own, in ascending order above `from` and below `limit`.
Result<std::vector<LoadedModule>> loadModules(LoadContext& context, std::uint64_t from, std::uint64_t limit);
/// Copies all modules as one initrd, as high as possible within [from, limit), each starting at a multiple of 4 as
/// Linux's initramfs format wants (Documentation/driver-api/early-userspace/buffer-format.rst); {0, 0} if there are
/// none.
Result<LoadedModule> loadInitrd(LoadContext& context, std::uint64_t from, std::uint64_t limit);
/// Bytes that loadInitrd() needs.
std::uint64_t initrdLength(const BootRequest& request);

/// An invalidArgument error about `what`, with the guest's size and a hint.
Error doesNotFit(const LoadContext& context, const std::string& what, std::uint64_t needed);

Result<BootState> loadBzImage(LoadContext& context);
Result<BootState> loadPvh(LoadContext& context);
Result<BootState> loadMultiboot(LoadContext& context);

/// Content checks for detectKernel(): `head` is the file's beginning.
bool isBzImage(std::span<const std::byte> head);
bool isMultiboot(std::span<const std::byte> head);
/// Whether the multiboot header in `head` gives the load addresses itself (flags bit 16).
bool multibootGivesAddresses(std::span<const std::byte> head);
/// Bytes of a kernel that detection looks at: multiboot's 8192 are the most.
inline constexpr std::uint64_t kHeadBytes = 8192;

}  // namespace lodge::firmware
