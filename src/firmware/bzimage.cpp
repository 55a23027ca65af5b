// SPDX-License-Identifier: Apache-2.0
// Linux's bzImage by the 64-bit boot protocol: Linux Documentation/x86/boot.rst, Documentation/x86/zero-page.rst.
#include <fmt/format.h>
#include <sys/random.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/bytes.h"
#include "firmware/layout.h"
#include "firmware/load_context.h"

namespace lodge::firmware {

namespace {
// Offsets in the file and, the same, in boot_params (boot.rst, "Details of header fields").
namespace field {
constexpr unsigned acpiRsdpAddr = 0x070, extRamdiskImage = 0x0c0, extRamdiskSize = 0x0c4, extCmdLinePtr = 0x0c8,
                   e820Entries = 0x1e8, setupSects = 0x1f1, sysSize = 0x1f4, bootFlag = 0x1fe, jump = 0x200,
                   header = 0x202, version = 0x206, typeOfLoader = 0x210, loadFlags = 0x211, ramdiskImage = 0x218,
                   ramdiskSize = 0x21c, cmdLinePtr = 0x228, initrdAddrMax = 0x22c, kernelAlignment = 0x230,
                   relocatableKernel = 0x234, xloadFlags = 0x236, cmdlineSize = 0x238, setupData = 0x250,
                   prefAddress = 0x258, initSize = 0x260, e820Table = 0x2d0;
}
constexpr unsigned kHeaderBytes = 0x290;  // covers every field that is read here
constexpr std::uint32_t kHdrS = 0x53726448;
constexpr std::uint16_t kVersion212 = 0x020c;
constexpr std::uint16_t kKernel64 = 1 << 0, kCanBeLoadedAbove4G = 1 << 1;
constexpr std::uint8_t kUndefinedLoader = 0xff;
constexpr std::uint64_t kEntry64 = 0x200;
constexpr unsigned kE820EntryBytes = 20, kE820Max = 128;
constexpr std::uint32_t kSetupRngSeed = 9;
constexpr std::uint64_t k4GiB = 4_GiB, kNoLimit = ~std::uint64_t{0};

/// The setup header's values, checked.
struct SetupHeader {
  std::vector<std::byte> bytes;  // the file's first kHeaderBytes
  std::uint64_t payloadOffset, payloadLength;
  std::uint64_t alignment, preferredAddress, initSize;
  std::uint64_t initrdLimit;  // exclusive
  bool relocatable, above4G;

  template <class T>
  T get(unsigned offset) const {
    return loadLe<T>(bytes.data() + offset);
  }
};

Error badHeader(const ImageFile& kernel, const std::string& why) {
  return Error(ErrorKind::corrupt, fmt::format("'{}' has a broken bzImage header: {}", kernel.name(), why));
}

Status checkBootable(const ImageFile& kernel, const SetupHeader& header) {
  auto version = header.get<std::uint16_t>(field::version);
  if (version < kVersion212) {
    return Error(ErrorKind::unsupported, fmt::format("'{}' speaks boot protocol {}.{:02}, without a 64-bit entry",
                                                     kernel.name(), version >> 8, version & 0xff))
        .withHint("use a 64-bit (amd64) kernel of Linux 3.8 or later");
  }
  if (!(header.get<std::uint16_t>(field::xloadFlags) & kKernel64)) {
    return Error(ErrorKind::unsupported, fmt::format("'{}' is a 32-bit Linux kernel", kernel.name()))
        .withHint("use a 64-bit (amd64) kernel");
  }
  if (header.alignment == 0 || (header.alignment & (header.alignment - 1)) != 0 || header.alignment > 1_GiB) {
    return badHeader(kernel, fmt::format("kernel_alignment 0x{:x}", header.alignment));
  }
  if (header.payloadLength <= kEntry64) return badHeader(kernel, fmt::format("syssize {}", header.payloadLength / 16));
  if (header.initSize > 1_TiB || header.preferredAddress > 1_TiB) return badHeader(kernel, "addresses beyond 1 TiB");
  if (header.payloadOffset + header.payloadLength > kernel.size()) {
    return Error(ErrorKind::corrupt,
                 fmt::format("'{}' is truncated: its header promises {} bytes, it has {}", kernel.name(),
                             header.payloadOffset + header.payloadLength, kernel.size()))
        .withHint("get the kernel again: its copy is not complete");
  }
  return {};
}

Result<SetupHeader> readHeader(const ImageFile& kernel) {
  SetupHeader header{};
  header.bytes.resize(kHeaderBytes);
  if (Status status = kernel.read(0, header.bytes); !status) return std::move(status).error();
  unsigned sectors = header.get<std::uint8_t>(field::setupSects);
  header.payloadOffset = ((sectors == 0 ? 4 : sectors) + 1) * 512u;
  header.payloadLength = std::uint64_t{header.get<std::uint32_t>(field::sysSize)} * 16;
  header.alignment = header.get<std::uint32_t>(field::kernelAlignment);
  header.preferredAddress = header.get<std::uint64_t>(field::prefAddress);
  header.initSize = header.get<std::uint32_t>(field::initSize);
  header.relocatable = header.get<std::uint8_t>(field::relocatableKernel) != 0;
  header.above4G = (header.get<std::uint16_t>(field::xloadFlags) & kCanBeLoadedAbove4G) != 0;
  header.initrdLimit = std::uint64_t{header.get<std::uint32_t>(field::initrdAddrMax)} + 1;
  if (Status status = checkBootable(kernel, header); !status) return std::move(status).error();
  return header;
}

// The kernel runs at pref_address or, relocatable, at the aligned address at or above it where it was loaded; it needs
// init_size bytes there.
Result<std::uint64_t> placeKernel(LoadContext& context, const SetupHeader& header) {
  std::uint64_t length = std::max(header.initSize, header.payloadLength);
  if (header.relocatable) {
    auto base = context.placement.takeLowest(length, header.alignment, std::max(header.preferredAddress, 1_MiB),
                                             header.above4G ? kNoLimit : k4GiB);
    if (base) return *base;
  } else if (context.placement.claim(header.preferredAddress, length)) {
    return header.preferredAddress;
  }
  return doesNotFit(context, fmt::format("kernel '{}' at 0x{:x}", context.kernel().name(), header.preferredAddress),
                    length);
}

Result<LoadedModule> placeInitrd(LoadContext& context, const SetupHeader& header) {
  std::uint64_t limit = std::min(header.initrdLimit, k4GiB);
  std::uint64_t room = context.placement.largestFree(layout::kHighMemoryStart, limit);
  if (header.above4G && initrdLength(context.request) + kPageSize > room) limit = kNoLimit;
  return loadInitrd(context, layout::kHighMemoryStart, limit);
}

// Identity map of the first 4 GiB and of the GiB where the kernel lies, in 2 MiB pages (every 64-bit CPU has them).
Result<std::uint64_t> putPageTables(LoadContext& context, std::uint64_t kernelBase, std::uint64_t kernelLength) {
  constexpr std::uint64_t kTable = 3, kLarge = 0x83;  // present, writable; page size
  std::vector<std::uint64_t> gibs{0, 1, 2, 3};
  for (std::uint64_t gib = kernelBase >> 30; gib <= (kernelBase + kernelLength - 1) >> 30; ++gib) {
    if (gib > 3) gibs.push_back(gib);
  }
  // Layout: PML4, one PDPT for each 512 GiB (two at most), one page directory for each GiB.
  std::vector<std::uint64_t> pdptGroups{0};
  for (std::uint64_t gib : gibs) {
    if (gib / 512 != pdptGroups.back()) pdptGroups.push_back(gib / 512);
  }
  std::size_t pages = 1 + pdptGroups.size() + gibs.size();
  std::vector<std::uint64_t> tables(pages * 512);
  auto base = context.put(std::as_bytes(std::span(tables)), kPageSize, "the boot page tables");
  if (!base) return base;
  auto page = [&](std::size_t index) { return *base + index * kPageSize; };
  for (std::size_t g = 0; g < pdptGroups.size(); ++g) tables[pdptGroups[g]] = page(1 + g) | kTable;
  for (std::size_t i = 0; i < gibs.size(); ++i) {
    std::size_t group = static_cast<std::size_t>(std::ranges::find(pdptGroups, gibs[i] / 512) - pdptGroups.begin());
    std::size_t directory = 1 + pdptGroups.size() + i;
    tables[(1 + group) * 512 + gibs[i] % 512] = page(directory) | kTable;
    for (std::uint64_t n = 0; n < 512; ++n) tables[directory * 512 + n] = (gibs[i] << 30) | (n << 21) | kLarge;
  }
  if (!context.memory.write(Gpa{*base}, std::as_bytes(std::span(tables))))
    return doesNotFit(context, "the boot page tables", 0);
  return base;
}

// struct setup_data (boot.rst): next, type, length, data. With it the guest's random number generator is ready at once.
Result<std::uint64_t> putRngSeed(LoadContext& context) {
  std::array<std::byte, 16 + 32> entry{};
  storeLe<std::uint32_t>(entry.data() + 8, kSetupRngSeed);
  storeLe<std::uint32_t>(entry.data() + 12, 32);
  std::size_t done = 16;
  while (done < entry.size()) {
    ssize_t n = ::getrandom(entry.data() + done, entry.size() - done, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return Error::fromErrno(errno, "get random bytes for the guest");
    done += static_cast<std::size_t>(n);
  }
  return context.put(entry, 8, "the random seed");
}

void storeMemoryMap(const std::vector<MemoryRange>& map, std::span<std::byte> params) {
  std::size_t count = std::min<std::size_t>(map.size(), kE820Max);
  params[field::e820Entries] = static_cast<std::byte>(count);
  for (std::size_t i = 0; i < count; ++i) {
    std::byte* entry = params.data() + field::e820Table + i * kE820EntryBytes;
    storeLe(entry, map[i].base);
    storeLe(entry + 8, map[i].length);
    storeLe(entry + 16, static_cast<std::uint32_t>(map[i].kind));
  }
}

void storeSplit(std::span<std::byte> params, unsigned low, unsigned high, std::uint64_t value) {
  storeLe(params.data() + low, static_cast<std::uint32_t>(value));
  storeLe(params.data() + high, static_cast<std::uint32_t>(value >> 32));
}

// The "zero page": all zero but the setup header from the file and what the boot loader fills in.
Result<std::uint64_t> putBootParams(LoadContext& context, const SetupHeader& header, LoadedModule initrd) {
  auto commandLine = context.putString(context.commandLine(), "the command line");
  if (!commandLine) return commandLine;
  auto seed = putRngSeed(context);
  if (!seed) return seed;
  std::vector<std::byte> params(kPageSize);
  unsigned headerEnd = std::min<unsigned>(field::header + header.get<std::uint8_t>(field::jump + 1), kHeaderBytes);
  std::copy(header.bytes.begin() + field::setupSects, header.bytes.begin() + headerEnd,
            params.begin() + field::setupSects);
  params[field::typeOfLoader] = std::byte{kUndefinedLoader};
  storeSplit(params, field::cmdLinePtr, field::extCmdLinePtr, *commandLine);
  storeSplit(params, field::ramdiskImage, field::extRamdiskImage, initrd.base);
  storeSplit(params, field::ramdiskSize, field::extRamdiskSize, initrd.length);
  storeLe(params.data() + field::setupData, *seed);
  storeLe(params.data() + field::acpiRsdpAddr, context.rsdp);
  storeMemoryMap(context.map, params);
  return context.put(params, kPageSize, "the boot parameters");
}
}  // namespace

bool isBzImage(std::span<const std::byte> head) {
  return head.size() >= field::version + 2 && loadLe<std::uint16_t>(head.data() + field::bootFlag) == 0xaa55 &&
         loadLe<std::uint32_t>(head.data() + field::header) == kHdrS;
}

Result<BootState> loadBzImage(LoadContext& context) {
  auto header = readHeader(context.kernel());
  if (!header) return std::move(header).error();
  auto limit = header->get<std::uint32_t>(field::cmdlineSize);
  if (context.commandLine().size() > limit) {
    return Error(ErrorKind::invalidArgument, fmt::format("the command line has {} bytes, '{}' takes at most {}",
                                                         context.commandLine().size(), context.kernel().name(), limit))
        .withHint("shorten --append");
  }
  auto base = placeKernel(context, *header);
  if (!base) return std::move(base).error();
  Status status = context.copy(context.kernel(), header->payloadOffset, header->payloadLength, Gpa{*base});
  if (!status) return std::move(status).error();
  auto initrd = placeInitrd(context, *header);
  if (!initrd) return std::move(initrd).error();
  auto tables = putPageTables(context, *base, std::max(header->initSize, header->payloadLength));
  if (!tables) return std::move(tables).error();
  auto gdt = context.putGdt(true);
  if (!gdt) return std::move(gdt).error();
  auto params = putBootParams(context, *header, *initrd);
  if (!params) return std::move(params).error();
  BootState boot = longModeState(*gdt, *tables, *base + kEntry64);
  boot.gpr[x86::rsi] = *params;
  return boot;
}

}  // namespace lodge::firmware
