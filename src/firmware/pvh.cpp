// SPDX-License-Identifier: Apache-2.0
// ELF kernels with a PVH entry: Xen docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h.
#include <fmt/format.h>

#include "base/bytes.h"
#include "firmware/elf.h"
#include "firmware/layout.h"
#include "firmware/load_context.h"

namespace lodge::firmware {

namespace {
constexpr std::uint32_t kStartMagic = 0x336ec578;
constexpr std::uint64_t kLimit = GuestMemory::kHoleStart;  // everything is reached by 32-bit addresses

struct StartInfo {
  std::uint32_t magic, version, flags, moduleCount;
  std::uint64_t moduleList, commandLine, rsdp;
  std::uint64_t memoryMap;
  std::uint32_t memoryMapEntries, reserved;
};
static_assert(sizeof(StartInfo) == 56);

struct ModuleEntry {
  std::uint64_t base, size, commandLine, reserved;
};
static_assert(sizeof(ModuleEntry) == 32);

struct MemoryMapEntry {
  std::uint64_t address, size;
  std::uint32_t type, reserved;
};
static_assert(sizeof(MemoryMapEntry) == 24);

// Linux takes the first module as its initrd and no other; other kernels get each module for itself.
Result<std::vector<ModuleEntry>> loadPvhModules(LoadContext& context, const ElfImage& elf) {
  std::vector<ModuleEntry> entries;
  if (elf.isLinux) {
    auto initrd = loadInitrd(context, layout::kHighMemoryStart, kLimit);
    if (!initrd) return std::move(initrd).error();
    if (initrd->length != 0) entries.push_back({initrd->base, initrd->length, 0, 0});
    return entries;
  }
  auto modules = loadModules(context, layout::kHighMemoryStart, kLimit);
  if (!modules) return std::move(modules).error();
  for (std::size_t i = 0; i < modules->size(); ++i) {
    auto text = context.putString(context.request.modules[i].arguments, "a module's arguments");
    if (!text) return std::move(text).error();
    entries.push_back({(*modules)[i].base, (*modules)[i].length, *text, 0});
  }
  return entries;
}

Result<std::uint64_t> putStartInfo(LoadContext& context, const std::vector<ModuleEntry>& modules) {
  std::vector<MemoryMapEntry> map;
  for (const MemoryRange& range : context.map) {
    map.push_back({range.base, range.length, static_cast<std::uint32_t>(range.kind), 0});
  }
  StartInfo info{};
  info.magic = kStartMagic;
  info.version = 1;
  info.rsdp = context.rsdp;
  auto mapAt = context.put(std::as_bytes(std::span(map)), 8, "the memory map");
  if (!mapAt) return mapAt;
  info.memoryMap = *mapAt;
  info.memoryMapEntries = static_cast<std::uint32_t>(map.size());
  auto text = context.putString(context.commandLine(), "the command line");
  if (!text) return text;
  info.commandLine = *text;
  if (!modules.empty()) {
    auto list = context.put(std::as_bytes(std::span(modules)), 8, "the module list");
    if (!list) return list;
    info.moduleList = *list;
    info.moduleCount = static_cast<std::uint32_t>(modules.size());
  }
  return context.put(bytesOf(info), 8, "the PVH start information");
}
}  // namespace

Result<BootState> loadPvh(LoadContext& context) {
  auto elf = parseElf(context.kernel());
  if (!elf) return std::move(elf).error();
  if (!elf->pvhEntry || *elf->pvhEntry >= 4_GiB || !elf->covers(*elf->pvhEntry)) {
    return Error(ErrorKind::corrupt, fmt::format("'{}' has a PVH entry 0x{:x} outside its segments",
                                                 context.kernel().name(), elf->pvhEntry.value_or(0)));
  }
  if (Status status = loadElfSegments(context, *elf); !status) return std::move(status).error();
  auto modules = loadPvhModules(context, *elf);
  if (!modules) return std::move(modules).error();
  auto info = putStartInfo(context, *modules);
  if (!info) return std::move(info).error();
  auto gdt = context.putGdt(false);
  if (!gdt) return std::move(gdt).error();
  BootState boot = protectedModeState(*gdt, *elf->pvhEntry);
  boot.gpr[x86::rbx] = *info;
  return boot;
}

}  // namespace lodge::firmware
