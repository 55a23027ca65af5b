// SPDX-License-Identifier: Apache-2.0
// boot ENGINE CPUS MIB KERNEL INITRD|- APPEND [DISK]: the shortest way to run a machine, for tests of the machine
// alone.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "machine/machine.h"

using namespace lodge;

namespace {
struct Console : ConsoleSink {
  void output(const char* data, std::size_t length) override {
    while (length != 0) {
      ssize_t n = ::write(STDOUT_FILENO, data, length);
      if (n <= 0) return;
      data += n;
      length -= static_cast<std::size_t>(n);
    }
  }
};
}  // namespace

int main(int argc, char** argv) {
  if (argc < 7) {
    std::fprintf(stderr, "usage: boot ENGINE CPUS MIB KERNEL INITRD|- APPEND [DISK]\n");
    return 2;
  }
  MachineConfig config;
  config.name = "boot";
  config.engine = argv[1];
  config.cpus = static_cast<unsigned>(std::atoi(argv[2]));
  config.memory = static_cast<std::uint64_t>(std::atoi(argv[3])) << 20;
  config.kernel = argv[4];
  if (std::string_view(argv[5]) != "-") config.initrds.push_back(argv[5]);
  config.append = argv[6];
  config.noReboot = true;
  config.debugExitPort = 0xf4;
  if (argc > 7) config.disks.emplace_back(DiskOptions{argv[7], "raw", false, true});
  config.nets.emplace_back();
  Console console;
  auto loop = EventLoop::create();
  if (!loop) return 3;
  auto machine = Machine::create(**loop, config, console);
  if (!machine) {
    std::fprintf(stderr, "boot: %s (%s)\n", machine.error().message().c_str(), machine.error().hint().c_str());
    return 3;
  }
  int status = 0;
  (*machine)->onEnd([&](MachineEnd end, int value) {
    status = end == MachineEnd::debugExit                                        ? value
             : end == MachineEnd::poweredOff || end == MachineEnd::resetNoReboot ? 0
                                                                                 : 4;
    (*loop)->stop();
  });
  (*machine)->start();
  (void)(*loop)->run();
  for (const auto& [name, value] : (*machine)->statistics())
    std::fprintf(stderr, "%s %llu\n", name.c_str(), static_cast<unsigned long long>(value));
  return status;
}
