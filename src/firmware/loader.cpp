// SPDX-License-Identifier: Apache-2.0
#include "firmware/loader.h"

#include <unistd.h>

#include "base/bytes.h"
#include "firmware/elf.h"
#include "firmware/load_context.h"
#include "firmware/tables.h"

namespace lodge::firmware {

namespace {
constexpr const char* kKernelHint =
    "give a Linux bzImage (vmlinuz), an ELF kernel with a PVH note, or a multiboot kernel";

bool startsWith(std::span<const std::byte> head, std::string_view magic) {
  return head.size() >= magic.size() && std::memcmp(head.data(), magic.data(), magic.size()) == 0;
}

// What people give by mistake, by the first bytes.
Error notAKernel(const ImageFile& file, std::span<const std::byte> head) {
  std::string what = "'" + file.name() + "' is not a kernel";
  if (head.empty()) what = "'" + file.name() + "' is empty";
  std::string hint = kKernelHint;
  if (startsWith(head, "\x1f\x8b") || startsWith(head, "\x28\xb5\x2f\xfd") ||
      startsWith(head,
                 "\xfd"
                 "7zXZ")) {
    what += ": it is a compressed file";
    hint = "decompress it first, if a kernel is in it; an initrd goes to --initrd";
  } else if (startsWith(head, "070701")) {
    what += ": it is a cpio archive";
    hint = "an initrd goes to --initrd";
  } else if (startsWith(head, "MZ")) {
    what += ": it is an EFI or Windows program without Linux's boot header";
  }
  return Error(ErrorKind::invalidArgument, what).withHint(hint);
}

Result<KernelKind> detectElf(const ImageFile& kernel, std::span<const std::byte> head) {
  auto elf = parseElf(kernel);
  if (!elf) return std::move(elf).error();
  // A kernel with both: 32-bit ELF is what multiboot loaders expect; a 64-bit one is better entered through its PVH
  // note.
  if (isMultiboot(head) && (!elf->is64 || !elf->pvhEntry)) return KernelKind::multiboot;
  if (elf->pvhEntry) return KernelKind::pvh;
  return Error(ErrorKind::invalidArgument,
               "'" + kernel.name() + "' is an ELF program with neither a PVH note nor a multiboot header")
      .withHint(kKernelHint);
}

// "path arguments": the whole text if that is a file's name (names may contain spaces), else the path is up to the
// first space.
std::string modulePath(const std::string& text, bool takesArguments) {
  std::size_t space = text.find(' ');
  if (!takesArguments || space == std::string::npos || ::access(text.c_str(), F_OK) == 0) return text;
  return text.substr(0, space);
}
}  // namespace

std::string_view toString(KernelKind kind) {
  switch (kind) {
    case KernelKind::bzImage:
      return "bzImage";
    case KernelKind::pvh:
      return "PVH";
    case KernelKind::multiboot:
      return "multiboot";
  }
  return "unknown";
}

Result<KernelKind> detectKernel(const ImageFile& kernel) {
  auto head = kernel.head(kHeadBytes);
  if (!head) return std::move(head).error();
  if (isBzImage(*head)) return KernelKind::bzImage;
  if (multibootGivesAddresses(*head)) return KernelKind::multiboot;
  if (isElf(*head)) return detectElf(kernel, *head);
  if (isMultiboot(*head)) {
    return Error(ErrorKind::corrupt,
                 "'" + kernel.name() + "' has a multiboot header without addresses, and is no ELF file");
  }
  return notAKernel(kernel, *head);
}

Result<BootRequest> openBootRequest(const std::string& kernel, const std::vector<std::string>& initrds,
                                    std::string commandLine, PlatformDescription platform) {
  BootRequest request;
  auto file = ImageFile::open(kernel);
  if (!file) return std::move(file).error().context("kernel").withHint("check the path given to --kernel");
  request.kernel = *std::move(file);
  auto kind = detectKernel(*request.kernel);
  if (!kind) return std::move(kind).error().context("kernel");
  for (const std::string& text : initrds) {
    auto module = ImageFile::open(modulePath(text, *kind != KernelKind::bzImage));
    if (!module) return std::move(module).error().context("initrd").withHint("check the path given to --initrd");
    request.modules.push_back({*std::move(module), text});
  }
  request.commandLine = std::move(commandLine);
  request.platform = std::move(platform);
  return request;
}

Result<BootState> loadKernel(GuestMemory& memory, const BootRequest& request, ImageCopies* copies) {
  auto kind = detectKernel(*request.kernel);
  if (!kind) return std::move(kind).error().context("kernel");
  auto tables = installTables(memory, request.platform);
  if (!tables) return std::move(tables).error();
  std::vector<MemoryRange> map = memoryMap(memory, request.platform);
  LoadContext context{memory, request, map, Placement(map), tables->rsdp, copies};
  auto boot = [&]() -> Result<BootState> {
    switch (*kind) {
      case KernelKind::bzImage:
        return loadBzImage(context);
      case KernelKind::pvh:
        return loadPvh(context);
      case KernelKind::multiboot:
        return loadMultiboot(context);
    }
    return Error(ErrorKind::internal, "unknown kernel kind");
  }();
  if (!boot) return std::move(boot).error().context("load kernel");
  return boot;
}

}  // namespace lodge::firmware
