// SPDX-License-Identifier: Apache-2.0
#include "memory/huge_file.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

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

}  // namespace

UniqueFd makeHugeMemoryFile(const char* name) {
  if (isWithheld(HostFeature::memfd) || ::access("/dev/kvm", R_OK | W_OK) != 0) return {};
  UniqueFd folder = mountTmpfs();
  if (!folder) return {};
  std::string path = std::string("memfd:") + name;
  UniqueFd file(::openat(folder.get(), path.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, S_IRUSR | S_IWUSR));
  if (file) ::unlinkat(folder.get(), path.c_str(), 0);
  return file;
}

}  // namespace lodge
