// SPDX-License-Identifier: Apache-2.0
// Multiboot Specification 0.6.96: kernels that are ELF files, or any file whose header gives the addresses ("a.out
// kludge").
#include <fmt/format.h>

#include <algorithm>

#include "base/bytes.h"
#include "base/log.h"
#include "firmware/elf.h"
#include "firmware/layout.h"
#include "firmware/load_context.h"

namespace lodge::firmware {

namespace {
constexpr std::uint32_t kHeaderMagic = 0x1badb002, kLoaderMagic = 0x2badb002;
constexpr std::uint64_t kSearchBytes = 8192, kLimit = GuestMemory::kHoleStart;

// Header flags (3.1.2): bits 0-15 are demands that a loader must know.
constexpr std::uint32_t kPageAlign = 1 << 0, kMemoryInfo = 1 << 1, kVideoMode = 1 << 2, kAddresses = 1 << 16;
constexpr std::uint32_t kDemands = 0xffff, kKnownDemands = kPageAlign | kMemoryInfo | kVideoMode;

// Information flags (3.3).
constexpr std::uint32_t kHasMemory = 1 << 0, kHasCommandLine = 1 << 2, kHasModules = 1 << 3, kHasMemoryMap = 1 << 6,
                        kHasLoaderName = 1 << 9;

struct Header {
  std::uint32_t magic, flags, checksum;
  std::uint32_t headerAddress, loadAddress, loadEnd, bssEnd, entry;
};
static_assert(sizeof(Header) == 32);

struct Information {
  std::uint32_t flags, memoryLower, memoryUpper, bootDevice, commandLine, moduleCount, modules;
  std::uint32_t symbols[4];
  std::uint32_t memoryMapLength, memoryMap, drivesLength, drives, configurationTable, loaderName, apmTable;
  std::uint32_t vbe[4];
};
static_assert(sizeof(Information) == 88);

struct ModuleEntry {
  std::uint32_t start, end, string, reserved;
};
static_assert(sizeof(ModuleEntry) == 16);

struct [[gnu::packed]] MemoryMapEntry {
  std::uint32_t size;  // of the rest
  std::uint64_t base, length;
  std::uint32_t type;
};
static_assert(sizeof(MemoryMapEntry) == 24);

struct FoundHeader {
  Header header;
  std::uint64_t offset;
};

// The header lies within the first 8192 bytes, 4-byte aligned; its first three words add up to zero (3.1).
std::optional<FoundHeader> findHeader(std::span<const std::byte> head) {
  head = head.first(std::min<std::size_t>(head.size(), kSearchBytes));
  for (std::size_t at = 0; at + 12 <= head.size(); at += 4) {
    FoundHeader found{};
    found.offset = at;
    std::memcpy(&found.header, head.data() + at, std::min(sizeof(Header), head.size() - at));
    if (found.header.magic != kHeaderMagic) continue;
    if (found.header.magic + found.header.flags + found.header.checksum != 0) continue;
    if ((found.header.flags & kAddresses) && head.size() - at < sizeof(Header)) continue;
    return found;
  }
  return std::nullopt;
}

struct LoadedKernel {
  std::uint64_t entry, end;
};

// Address fields (3.1.3): the file from where load_addr corresponds to, up to load_end_addr, zeros up to bss_end_addr.
Result<LoadedKernel> loadByAddresses(LoadContext& context, const FoundHeader& found) {
  const Header& h = found.header;
  auto broken = [&](const char* why) {
    return Error(ErrorKind::corrupt,
                 fmt::format("'{}' has a broken multiboot header: {}", context.kernel().name(), why));
  };
  if (h.loadAddress > h.headerAddress) return broken("load_addr is above header_addr");
  std::uint64_t before = h.headerAddress - h.loadAddress;
  if (before > found.offset) return broken("load_addr is before the file's beginning");
  std::uint64_t offset = found.offset - before;
  std::uint64_t length = context.kernel().size() - offset;
  if (h.loadEnd != 0) {
    if (h.loadEnd < h.loadAddress) return broken("load_end_addr is below load_addr");
    length = h.loadEnd - h.loadAddress;
    if (length > context.kernel().size() - offset) {
      return Error(ErrorKind::corrupt, fmt::format("'{}' is truncated: its header promises {} bytes, it has {}",
                                                   context.kernel().name(), offset + length, context.kernel().size()))
          .withHint("get the kernel again: its copy is not complete");
    }
  }
  std::uint64_t end = h.loadAddress + length;
  if (h.bssEnd != 0 && h.bssEnd < end) return broken("bss_end_addr is below the loaded part's end");
  end = std::max<std::uint64_t>(end, h.bssEnd);
  if (h.entry < h.loadAddress || h.entry >= end) return broken("entry_addr is outside the loaded part");
  if (!context.placement.claim(h.loadAddress, end - h.loadAddress)) {
    return doesNotFit(context, fmt::format("kernel '{}' at 0x{:x}", context.kernel().name(), h.loadAddress),
                      end - h.loadAddress);
  }
  Status status = context.kernel().load(offset, length, context.memory, Gpa{h.loadAddress});
  if (!status) return std::move(status).error();
  if (!zeroGuest(context.memory, Gpa{h.loadAddress + length}, end - h.loadAddress - length)) {
    return doesNotFit(context, "the kernel's zeroed data", end - h.loadAddress);
  }
  return LoadedKernel{h.entry, end};
}

Result<LoadedKernel> loadByElf(LoadContext& context) {
  auto elf = parseElf(context.kernel());
  if (!elf) return std::move(elf).error();
  std::uint64_t entry = elf->physicalEntry();
  if (entry >= 4_GiB || !elf->covers(entry)) {
    return Error(ErrorKind::corrupt,
                 fmt::format("'{}' has its entry 0x{:x} outside its segments", context.kernel().name(), entry));
  }
  if (Status status = loadElfSegments(context, *elf); !status) return std::move(status).error();
  return LoadedKernel{entry, elf->end()};
}

Status putModules(LoadContext& context, std::uint64_t kernelEnd, Information& info) {
  auto modules = loadModules(context, std::max(kernelEnd, layout::kHighMemoryStart), kLimit);
  if (!modules) return std::move(modules).error();
  std::vector<ModuleEntry> entries;
  for (std::size_t i = 0; i < modules->size(); ++i) {
    auto text = context.putString(context.request.modules[i].arguments, "a module's arguments");
    if (!text) return std::move(text).error();
    const LoadedModule& module = (*modules)[i];
    entries.push_back({static_cast<std::uint32_t>(module.base), static_cast<std::uint32_t>(module.base + module.length),
                       static_cast<std::uint32_t>(*text), 0});
  }
  info.flags |= kHasModules;
  info.moduleCount = static_cast<std::uint32_t>(entries.size());
  if (entries.empty()) return {};
  auto list = context.put(std::as_bytes(std::span(entries)), 4, "the module list");
  if (!list) return std::move(list).error();
  info.modules = static_cast<std::uint32_t>(*list);
  return {};
}

Status putMemoryMap(LoadContext& context, Information& info) {
  std::vector<MemoryMapEntry> entries;
  for (const MemoryRange& range : context.map) {
    entries.push_back({sizeof(MemoryMapEntry) - 4, range.base, range.length, static_cast<std::uint32_t>(range.kind)});
  }
  auto map = context.put(std::as_bytes(std::span(entries)), 4, "the memory map");
  if (!map) return std::move(map).error();
  info.memoryMap = static_cast<std::uint32_t>(*map);
  info.memoryMapLength = static_cast<std::uint32_t>(entries.size() * sizeof(MemoryMapEntry));
  info.memoryLower = static_cast<std::uint32_t>(layout::kLowMemoryEnd / 1_KiB);
  std::uint64_t low = context.memory.lowSize();
  info.memoryUpper = low > 1_MiB ? static_cast<std::uint32_t>((low - 1_MiB) / 1_KiB) : 0;
  info.flags |= kHasMemory | kHasMemoryMap;
  return {};
}

// The string starts with the kernel's name, as boot loaders do it (3.3, "cmdline").
Status putStrings(LoadContext& context, Information& info) {
  std::string text = context.kernel().name();
  if (!context.commandLine().empty()) text += " " + context.commandLine();
  auto commandLine = context.putString(text, "the command line");
  if (!commandLine) return std::move(commandLine).error();
  info.commandLine = static_cast<std::uint32_t>(*commandLine);
  auto name = context.putString("lodge", "the boot loader's name");
  if (!name) return std::move(name).error();
  info.loaderName = static_cast<std::uint32_t>(*name);
  info.flags |= kHasCommandLine | kHasLoaderName;
  return {};
}

Status checkDemands(const ImageFile& kernel, const Header& header) {
  std::uint32_t unknown = header.flags & kDemands & ~kKnownDemands;
  if (unknown != 0) {
    return Error(
        ErrorKind::unsupported,
        fmt::format("'{}' demands multiboot features that Lodge does not have (flags 0x{:x})", kernel.name(), unknown));
  }
  // Kernels look at the information's flags before they use a video mode; those that want one run without it.
  if (header.flags & kVideoMode) log(LogLevel::info, "'{}' would like a video mode; there is none", kernel.name());
  return {};
}
}  // namespace

bool isMultiboot(std::span<const std::byte> head) {
  return findHeader(head).has_value();
}

bool multibootGivesAddresses(std::span<const std::byte> head) {
  auto found = findHeader(head);
  return found && (found->header.flags & kAddresses) != 0;
}

Result<BootState> loadMultiboot(LoadContext& context) {
  auto head = context.kernel().head(kSearchBytes);
  if (!head) return std::move(head).error();
  auto found = findHeader(*head);
  if (!found) return Error(ErrorKind::corrupt, "'" + context.kernel().name() + "' has no multiboot header");
  if (Status status = checkDemands(context.kernel(), found->header); !status) return std::move(status).error();
  auto kernel = (found->header.flags & kAddresses) ? loadByAddresses(context, *found) : loadByElf(context);
  if (!kernel) return std::move(kernel).error();
  Information info{};
  if (Status status = putModules(context, kernel->end, info); !status) return std::move(status).error();
  if (Status status = putMemoryMap(context, info); !status) return std::move(status).error();
  if (Status status = putStrings(context, info); !status) return std::move(status).error();
  auto at = context.put(bytesOf(info), 16, "the multiboot information");
  if (!at) return std::move(at).error();
  auto gdt = context.putGdt(false);
  if (!gdt) return std::move(gdt).error();
  BootState boot = protectedModeState(*gdt, kernel->entry);
  boot.gpr[x86::rax] = kLoaderMagic;
  boot.gpr[x86::rbx] = *at;
  return boot;
}

}  // namespace lodge::firmware
