// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "base/file.h"
#include "base/text.h"
#include "cli/doctor.h"
#include "cli/host_files.h"

namespace lodge::cli {

namespace {

using Grade = Finding::Grade;

/// A line of /proc/meminfo in bytes.
std::uint64_t meminfo(std::string_view name) {
  std::string text = hostFile("/proc/meminfo");
  for (std::string_view line : split(text, '\n')) {
    if (!line.starts_with(name) || line.substr(name.size(), 1) != ":") continue;
    line.remove_prefix(name.size() + 1);
    line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
    return parseNumber(line.substr(0, line.find(' '))).value_or(0) * 1024;
  }
  return 0;
}

std::string errnoText(int value) {
  return std::generic_category().message(value);
}

}  // namespace

Finding examineMemory() {
  std::uint64_t total = meminfo("MemTotal");
  std::uint64_t available = meminfo("MemAvailable");
  Finding finding{.key = "memory", .title = "Memory"};
  finding.facts = {{"totalBytes", total}, {"availableBytes", available}, {"swapBytes", meminfo("SwapTotal")}};
  finding.text = fmt::format("{}, {} of it available", formatSize(total), formatSize(available));
  if (available < 512_MiB) {
    finding.grade = Grade::note;
    finding.text += ": little for a machine";
  }
  return finding;
}

Finding examineOvercommit() {
  auto mode = hostNumber("/proc/sys/vm/overcommit_memory").value_or(0);
  Finding finding{.key = "overcommit", .title = "Overcommit", .facts = {{"mode", mode}}};
  finding.text = "vm.overcommit_memory is " + std::to_string(mode);
  if (mode == 2) {
    finding.grade = Grade::bad;
    finding.text +=
        ": the host refuses the translator's address space, which is large and hardly used; 'sysctl "
        "vm.overcommit_memory=0' "
        "mends that";
  }
  return finding;
}

Finding examineMapCount() {
  auto limit = hostNumber("/proc/sys/vm/max_map_count").value_or(0);
  constexpr std::uint64_t kUsual = 65530;
  Finding finding{.key = "maxMapCount", .title = "Mappings", .facts = {{"limit", limit}}};
  finding.text = fmt::format("vm.max_map_count is {}", limit);
  if (limit < kUsual) {
    finding.grade = Grade::note;
    finding.text += fmt::format(": less than the usual {}", kUsual);
  }
  return finding;
}

Finding examineMemfd() {
  UniqueFd fd(::memfd_create("lodge-doctor", MFD_CLOEXEC));
  bool good = fd && ::ftruncate(fd.get(), kPageSize) == 0;
  int error = errno;
  void* mapping = good ? ::mmap(nullptr, kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0) : MAP_FAILED;
  // Translated code is written through one mapping and run through another.
  void* code = good ? ::mmap(nullptr, kPageSize, PROT_READ | PROT_EXEC, MAP_SHARED, fd.get(), 0) : MAP_FAILED;
  if (good) error = errno;
  good = mapping != MAP_FAILED && code != MAP_FAILED;
  if (mapping != MAP_FAILED) ::munmap(mapping, kPageSize);
  if (code != MAP_FAILED) ::munmap(code, kPageSize);
  if (good) {
    return {.key = "memfd",
            .title = "memfd",
            .text = "memory files can be made and executed from",
            .facts = {{"usable", true}, {"inUse", "memfd"}}};
  }
  // What base/memory_file.cpp and the engines do then.
  void* anonymous = ::mmap(nullptr, kPageSize, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  bool executable = anonymous != MAP_FAILED;
  if (executable) ::munmap(anonymous, kPageSize);
  return {.key = "memfd",
          .title = "memfd",
          .grade = executable ? Grade::note : Grade::bad,
          .text = "no executable memory files (" + errnoText(error) + "): " +
                  (executable ? "files in /dev/shm or /tmp and anonymous code memory are used"
                              : "nor may anonymous memory be executed, which every engine needs"),
          .facts = {{"usable", false}, {"inUse", executable ? "files" : "nothing"}}};
}

Finding examineReservations() {
  // A little more than one vCPU's tables take (engine/translate/address_space.h).
  constexpr std::uint64_t kBytes = 2_TiB;
  void* p = ::mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  bool good = p != MAP_FAILED;
  int error = errno;
  if (good) ::munmap(p, kBytes);
  return {.key = "reservations",
          .title = "Address space",
          .grade = good ? Grade::good : Grade::bad,
          .text = good ? "the translator's tables can be reserved"
                       : "no room for the translator's tables (" + errnoText(error) +
                             "): machines get the interpreter, 30 times slower; raise 'ulimit -v'",
          .facts = {{"usable", good}}};
}

Finding examineMembarrier() {
  constexpr int kQuery = 0, kRegister = 1 << 4;  // MEMBARRIER_CMD_QUERY, _REGISTER_PRIVATE_EXPEDITED
  long commands = ::syscall(SYS_membarrier, kQuery, 0, 0);
  bool good = commands >= 0 && (commands & kRegister) != 0;
  return {.key = "membarrier",
          .title = "membarrier",
          .grade = good ? Grade::good : Grade::note,
          .text = good ? "available" : "not available: some branches of machines with several CPUs take the long way",
          .facts = {{"usable", good}}};
}

Finding examineExecutors() {
  constexpr unsigned long kFsgsbase = 2;  // HWCAP2_FSGSBASE
  bool fsgsbase = (::getauxval(AT_HWCAP2) & kFsgsbase) != 0, bmi2 = __builtin_cpu_supports("bmi2") != 0;
  bool good = fsgsbase && bmi2;
  return {.key = "executors",
          .title = "executors",
          .grade = good ? Grade::good : Grade::note,
          .text = good ? "programs of translated machines that compute run in processes of their own"
                       : std::string("the processor or kernel has no ") + (fsgsbase ? "BMI2" : "FSGSBASE") +
                             ": programs of translated machines cannot run in processes of their own",
          .facts = {{"usable", good}}};
}

Finding examineUserfaultfd() {
  UniqueFd fd(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY)));
  int error = errno;
  Finding finding{.key = "userfaultfd", .title = "userfaultfd", .grade = fd ? Grade::good : Grade::note};
  bool writeProtect = false;
  if (fd) {
    uffdio_api api{};
    api.api = UFFD_API;
    writeProtect = ::ioctl(fd.get(), UFFDIO_API, &api) == 0 && (api.features & UFFD_FEATURE_PAGEFAULT_FLAG_WP) != 0;
  }
  finding.facts = {{"available", bool(fd)}, {"writeProtect", writeProtect}};
  finding.text = !fd ? "not available (" + errnoText(error) + "): page protection finds stores to translated code"
                 : writeProtect
                     ? "available, with write protection: it finds stores to translated code"
                     : "available, without write protection: page protection finds stores to translated code";
  return finding;
}

}  // namespace lodge::cli
