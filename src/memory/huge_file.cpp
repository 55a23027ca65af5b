// SPDX-License-Identifier: Apache-2.0
#include "memory/huge_file.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <linux/mount.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <string>

#include "base/trace.h"

namespace lodge {

namespace {

// Of unlimited size, as a memfd is.
constexpr struct {
  const char *key, *value;
} kOptions[] = {{"size", "0"}, {"nr_inodes", "0"}, {"mode", "0700"}, {"huge", "advise"}};

UniqueFd mountTmpfs() {
  UniqueFd context(static_cast<int>(::syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC)));
  if (!context) return {};
  for (const auto& option : kOptions) {
    if (::syscall(SYS_fsconfig, context.get(), FSCONFIG_SET_STRING, option.key, option.value, 0) != 0) return {};
  }
  if (::syscall(SYS_fsconfig, context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) return {};
  return UniqueFd(
      static_cast<int>(::syscall(SYS_fsmount, context.get(), FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)));
}

/// A number of the kernel's about its pages of 2 MiB.
std::uint64_t pagesOfHost(const char* what) {
  std::ifstream file(std::string("/sys/kernel/mm/hugepages/hugepages-2048kB/") + what);
  std::uint64_t pages = 0;
  return file >> pages ? pages : 0;
}

std::atomic<bool> reservedOnes{false};

}  // namespace

void takeReservedHugePages() {
  reservedOnes = true;
}

bool takesReservedHugePages() {
  return reservedOnes;
}

UniqueFd makeHugeMemoryFile(const char* name) {
  if (isWithheld(HostFeature::memfd) || ::access("/dev/kvm", R_OK | W_OK) != 0) return {};
  UniqueFd folder = mountTmpfs();
  if (!folder) return {};
  std::string path = std::string("memfd:") + name;
  UniqueFd file(::openat(folder.get(), path.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, S_IRUSR | S_IWUSR));
  if (file) ::unlinkat(folder.get(), path.c_str(), 0);
  return file;
}

UniqueFd makeReservedHugeFile(const char* name) {
  return UniqueFd(::memfd_create(name, MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB));
}

Error hugePagesMissing(std::uint64_t bytes) {
  std::uint64_t needed = bytes / kHugePage, all = pagesOfHost("nr_hugepages"), taken = pagesOfHost("resv_hugepages");
  std::uint64_t free = pagesOfHost("free_hugepages");
  free = free > taken ? free - taken : 0;
  std::uint64_t missing = needed > free ? needed - free : 0;
  return Error(ErrorKind::outOfMemory, "--hugepages: the machine needs " + std::to_string(needed) +
                                           " huge pages of 2M, and of the host's " + std::to_string(all) + " only " +
                                           std::to_string(free) + " are free")
      .withHint("'sysctl vm.nr_hugepages=" + std::to_string(all + missing) +
                "' sets enough aside (as root, best soon after the host's start), or leave --hugepages out");
}

}  // namespace lodge
