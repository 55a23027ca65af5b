// SPDX-License-Identifier: Apache-2.0
#include "firmware/load_context.h"

#include <fmt/format.h>

#include "firmware/layout.h"

namespace lodge::firmware {

namespace {
// Boot information goes below 4 GiB for every protocol, and below 640 KiB while there is room.
std::optional<std::uint64_t> takeInformation(Placement& placement, std::uint64_t length, std::uint64_t alignment) {
  auto low = placement.takeLowest(length, alignment, layout::kPlacementStart, layout::kLowMemoryEnd);
  return low ? low : placement.takeHighest(length, alignment, layout::kHighMemoryStart, GuestMemory::kHoleStart);
}
}  // namespace

Status LoadContext::copy(const ImageFile& file, std::uint64_t offset, std::uint64_t length, Gpa to) {
  if (!copies) return file.load(offset, length, memory, to);
  copies->add(file, offset, length, memory, to);
  return {};
}

Result<std::uint64_t> LoadContext::put(std::span<const std::byte> bytes, std::uint64_t alignment,
                                       std::string_view what) {
  auto base = takeInformation(placement, bytes.size(), alignment);
  if (!base || !memory.write(Gpa{*base}, bytes)) return doesNotFit(*this, std::string(what), bytes.size());
  return *base;
}

Result<std::uint64_t> LoadContext::putString(std::string_view text, std::string_view what) {
  std::string withZero(text);
  withZero.push_back('\0');
  return put(std::as_bytes(std::span(withZero)), 16, what);
}

Result<std::uint64_t> LoadContext::putGdt(bool longMode) {
  std::uint64_t gdt[kFlatGdtEntries];
  makeFlatGdt(longMode, gdt);
  return put(std::as_bytes(std::span(gdt)), 16, "the boot GDT");
}

Error doesNotFit(const LoadContext& context, const std::string& what, std::uint64_t needed) {
  return Error(ErrorKind::invalidArgument, fmt::format("{} ({} KiB) does not fit into {} MiB of guest memory", what,
                                                       (needed + 1023) / 1024, context.memory.size() / 1_MiB))
      .withHint("give the machine more memory (-m)");
}

Result<std::vector<LoadedModule>> loadModules(LoadContext& context, std::uint64_t from, std::uint64_t limit) {
  std::vector<LoadedModule> loaded;
  for (const BootModule& module : context.request.modules) {
    std::uint64_t length = module.file->size();
    // An empty module still gets an address of its own.
    auto base = context.placement.takeLowest(std::max<std::uint64_t>(length, 1), kPageSize, from, limit);
    if (!base) return doesNotFit(context, "module '" + module.file->name() + "'", length);
    if (Status status = module.file->load(0, length, context.memory, Gpa{*base}); !status)
      return std::move(status).error();
    loaded.push_back({*base, length});
    from = *base;
  }
  return loaded;
}

std::uint64_t initrdLength(const BootRequest& request) {
  std::uint64_t length = 0;
  for (const BootModule& module : request.modules) length = alignUp(length, 4) + module.file->size();
  return length;
}

Result<LoadedModule> loadInitrd(LoadContext& context, std::uint64_t from, std::uint64_t limit) {
  std::uint64_t length = initrdLength(context.request);
  if (length == 0) return LoadedModule{0, 0};
  auto base = context.placement.takeHighest(length, kPageSize, from, limit);
  if (!base) return doesNotFit(context, "initrd '" + context.request.modules.front().file->name() + "'", length);
  if (!zeroGuest(context.memory, Gpa{*base}, length)) return doesNotFit(context, "the initrd", length);
  std::uint64_t at = 0;
  for (const BootModule& module : context.request.modules) {
    at = alignUp(at, 4);
    Status status = context.copy(*module.file, 0, module.file->size(), Gpa{*base + at});
    if (!status) return std::move(status).error();
    at += module.file->size();
  }
  return LoadedModule{*base, length};
}

}  // namespace lodge::firmware
