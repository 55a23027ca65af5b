// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "base/file.h"
#include "base/text.h"
#include "cli/doctor.h"
#include "cli/host_files.h"
#include "control/runtime_folder.h"
#include "engine/kvm/probe_cache.h"

namespace lodge::cli {

namespace {

using Grade = Finding::Grade;

std::string errnoText(int value) {
  return std::generic_category().message(value);
}

/// Whether a process may make a user namespace: tried, in a child. 0 or an errno value.
int tryUserNamespace() {
  pid_t pid = ::fork();
  if (pid == 0) ::_exit(::unshare(CLONE_NEWUSER) == 0 ? 0 : errno);
  int status = 0;
  if (pid < 0) return errno;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
}

}  // namespace

Finding examineNamespaces() {
  int error = tryUserNamespace();
  return {.key = "userNamespaces",
          .title = "User namespaces",
          .grade = error == 0 ? Grade::good : Grade::note,
          .text = error == 0 ? "can be made" : "cannot be made (" + errnoText(error) + "); machines do not need them",
          .facts = {{"available", error == 0}, {"root", ::geteuid() == 0}}};
}

Finding examineTap() {
  Finding finding{.key = "tap", .title = "Tap devices", .grade = Grade::note};
  UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  int error = errno;
  bool made = false;
  if (fd) {
    ifreq request{};
    request.ifr_flags = IFF_TAP | IFF_NO_PI;
    made = ::ioctl(fd.get(), TUNSETIFF, &request) == 0;  // goes away with the descriptor
    error = errno;
  }
  UniqueFd vhost(::open("/dev/vhost-net", O_RDWR | O_CLOEXEC));
  std::string without = vhost ? "" : fmt::format("; without vhost-net ({})", errnoText(errno));
  finding.facts = {{"openable", bool(fd)}, {"usable", made}, {"vhost", bool(vhost)}};
  if (made) {
    finding.grade = Grade::good;
    finding.text = "can be made" + (vhost ? "; vhost-net can move their frames" : without);
  } else {
    finding.text = fmt::format("cannot be made ({}: {}); --net user needs none", fd ? "TUNSETIFF" : "/dev/net/tun",
                               errnoText(error));
  }
  return finding;
}

Finding examineRuntimeFolder() {
  auto folder = control::RuntimeFolder::open();
  if (!folder) {
    return {.key = "runtimeFolder",
            .title = "Runtime folder",
            .grade = Grade::bad,
            .text = folder.error().message() + "; " + folder.error().hint()};
  }
  return {
      .key = "runtimeFolder", .title = "Runtime folder", .text = folder->path(), .facts = {{"path", folder->path()}}};
}

std::vector<Finding> examineHost() {
  // Asked anew, whatever was known; and machines that start from now on know what came out.
  kvm::ProbeResult kvm = kvm::probe();
  if (kvm.openable) kvm::ProbeCache::ofHost().store(kvm);
  return {examineProcessor(),    examineVirtualization(),   examineModules(),
          examineNesting(),      examineOtherHypervisors(), examineKvm(kvm),
          examineCapabilities(), examineInstructions(),     examineMemory(),
          examineOvercommit(),   examineMapCount(),         examineMemfd(),
          examineReservations(), examineMembarrier(),       examineExecutors(),
          examineUserfaultfd(),  examineHugePages(),        examineKsm(),
          examineIommu(),        examineNamespaces(),       examineTap(),
          examineNetworks(),     examineBridges(),          examineRuntimeFolder(),
          examineEngines(kvm),   examineEngine(kvm)};
}

}  // namespace lodge::cli
