// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "base/text.h"
#include "machine/machine.h"
#include "machine/trace.h"

namespace lodge {

namespace {
constexpr unsigned kMaxCpus = 16;
constexpr std::uint64_t kMinMemory = 16_MiB;
constexpr std::size_t kMaxDisks = 20, kMaxNets = 8;
}  // namespace

Status validate(const MachineConfig& config) {
  if (config.cpus == 0 || config.cpus > kMaxCpus) {
    return Error(ErrorKind::invalidArgument, fmt::format("{} CPUs", config.cpus))
        .withHint(fmt::format("--cpus takes 1 to {}", kMaxCpus));
  }
  if (config.memory < kMinMemory || config.memory > 1_TiB) {
    return Error(ErrorKind::invalidArgument, formatSize(config.memory) + " of memory")
        .withHint("--memory takes 16M to 1T");
  }
  if (config.memory % kPageSize != 0) {
    return Error(ErrorKind::invalidArgument, fmt::format("{} bytes of memory", config.memory))
        .withHint("--memory takes a multiple of 4K");
  }
  if (config.kernel.empty()) {
    return Error(ErrorKind::invalidArgument, "no kernel given").withHint("name one with --kernel FILE");
  }
  if (config.disks.size() > kMaxDisks) {
    return Error(ErrorKind::invalidArgument, fmt::format("{} disks", config.disks.size()))
        .withHint(fmt::format("a machine takes up to {}", kMaxDisks));
  }
  if (config.nets.size() > kMaxNets) {
    return Error(ErrorKind::invalidArgument, fmt::format("{} network cards", config.nets.size()))
        .withHint(fmt::format("a machine takes up to {}", kMaxNets));
  }
  return checkTrace(config.trace);
}

}  // namespace lodge
