// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "firmware/boot_state.h"
#include "firmware/image_copies.h"
#include "firmware/image_file.h"
#include "firmware/platform.h"
#include "memory/guest_memory.h"

namespace lodge::firmware {

/// The kernel formats that are started directly.
enum class KernelKind : std::uint8_t {
  bzImage,    ///< Linux's own, by the 64-bit boot protocol (Linux Documentation/x86/boot.rst)
  pvh,        ///< ELF with a XEN_ELFNOTE_PHYS32_ENTRY note (Xen docs/misc/pvh.pandoc): Linux's vmlinux, and others
  multiboot,  ///< Multiboot Specification 0.6.96: ELF, or any file whose header gives its addresses
};
std::string_view toString(KernelKind kind);

/// An initrd, or a multiboot or PVH module.
struct BootModule {
  std::shared_ptr<const ImageFile> file;
  std::string arguments;  ///< the module's string, as the kernel gets it: "path arguments"
};

/// What to start. Files stay open, so that the same request starts the same kernel at each reset.
struct BootRequest {
  std::shared_ptr<const ImageFile> kernel;
  std::vector<BootModule> modules;
  std::string commandLine;
  PlatformDescription platform;
};

/// Opens the kernel and its initrds. In `initrds`, an entry is a path; for multiboot and PVH kernels it may be followed
/// by a space and the module's arguments. Several initrds of a Linux kernel become one, in their order. Errors: as
/// ImageFile::open(), naming the file.
Result<BootRequest> openBootRequest(const std::string& kernel, const std::vector<std::string>& initrds,
                                    std::string commandLine, PlatformDescription platform);

/// The kind of a kernel, by its content. Errors: invalidArgument (what it is instead, where that is known), corrupt,
/// io.
Result<KernelKind> detectKernel(const ImageFile& kernel);

/// Writes firmware's tables (ACPI, SMBIOS), the kernel, its modules and its boot information to guest RAM and returns
/// the BSP's registers. At start and at each reset, while no vCPU runs. Errors name the file: corrupt (truncated,
/// impossible header), invalidArgument (no kernel; command line too long; does not fit guest RAM), unsupported (a
/// 32-bit kernel), io.
/// With `copies`, files whose contents nothing else depends on are added to it instead of being copied; the caller
/// finishes it before a vCPU runs.
Result<BootState> loadKernel(GuestMemory& memory, const BootRequest& request, ImageCopies* copies = nullptr);

}  // namespace lodge::firmware
