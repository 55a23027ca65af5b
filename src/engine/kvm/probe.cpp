// SPDX-License-Identifier: Apache-2.0
#include "engine/kvm/probe.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/kvm.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>
#include <system_error>

#include "base/file.h"
#include "engine/kvm/probe_child.h"
#include "engine/kvm/probe_guest.h"

namespace lodge::kvm {

namespace {

std::string_view stepName(unsigned step) {
  switch (step) {
    case 0:
      return "its first instruction";
    case PROBE_STEP_STARTED:
      return "control and model-specific registers";
    case PROBE_STEP_REGISTERS:
      return "an invalid-opcode exception";
    case PROBE_STEP_EXCEPTION:
      return "a page fault";
    case PROBE_STEP_PAGE_FAULT:
      return "a device access";
    case PROBE_STEP_MMIO:
      return "ring 3";
    case PROBE_STEP_USER:
      return "a system call";
    default:
      return "a loop";
  }
}

std::string_view exitName(unsigned reason) {
  switch (reason) {
    case KVM_EXIT_HLT:
      return "it halted";
    case KVM_EXIT_SHUTDOWN:
      return "it triple-faulted";
    case KVM_EXIT_FAIL_ENTRY:
      return "the processor refused to enter it";
    case KVM_EXIT_INTERNAL_ERROR:
      return "KVM could not emulate an instruction";
    case KVM_EXIT_EXCEPTION:
      return "an exception reached the host";
    default:
      return "an exit that no such guest causes";
  }
}

std::string_view setupName(SetupStep step) {
  switch (step) {
    case SetupStep::createVm:
      return "KVM_CREATE_VM";
    case SetupStep::memory:
      return "KVM_SET_USER_MEMORY_REGION";
    case SetupStep::createVcpu:
      return "KVM_CREATE_VCPU";
    case SetupStep::mapRun:
      return "mapping struct kvm_run";
    case SetupStep::cpuid:
      return "KVM_SET_CPUID2";
    case SetupStep::registers:
      return "KVM_SET_SREGS";
    case SetupStep::run:
      return "KVM_RUN";
  }
  return "KVM";
}

std::string errnoText(int value) {
  return std::generic_category().message(value);
}

/// Judges what the child left in the shared page.
void judge(const ProbeReport& report, bool ended, int milliseconds, ProbeResult& result) {
  unsigned step = report.step.load();
  std::string where =
      fmt::format("the probe guest failed at {}", stepName(step == PROBE_STEP_FAILED ? report.lastGood.load() : step));
  if (!ended && step < PROBE_STEP_LOOP_BEGIN) {
    result.reason = fmt::format("the probe guest did not get past {} in {} ms", stepName(step), milliseconds);
  } else if (!ended) {
    result.reason = fmt::format("the probe guest is slower than {:.1f} million instructions a second",
                                1e-3 * PROBE_LOOP_ROUNDS * PROBE_LOOP_INSTRUCTIONS / milliseconds);
  } else if (report.error.load() != 0) {
    result.reason = fmt::format("{} fails: {}", setupName(report.setup.load()), errnoText(report.error.load()));
  } else if (step != PROBE_STEP_LOOP_END) {
    result.reason =
        report.exitReason.load() == 0 ? where : fmt::format("{}: {}", where, exitName(report.exitReason.load()));
  } else {
    constexpr double kInstructions = double{PROBE_LOOP_ROUNDS} * PROBE_LOOP_INSTRUCTIONS;
    result.instructionsPerSecond =
        kInstructions * 1e9 / static_cast<double>(std::max<std::int64_t>(1, report.loopNanoseconds.load()));
    result.usable = result.instructionsPerSecond >= kMinInstructionsPerSecond;
    result.reason =
        fmt::format("the probe guest ran right, at {:.0f} million instructions a second{}",
                    result.instructionsPerSecond / 1e6, result.usable ? "" : ": far too slow for a real processor");
  }
}

/// Waits for the child; kills it at the end of its time. False if it did not end by itself.
bool await(pid_t pid, int milliseconds) {
  UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  pollfd entry{pidfd.get(), POLLIN, 0};
  bool ended = pidfd && ::poll(&entry, 1, milliseconds) > 0;
  if (!ended) {
    ::kill(pid, SIGKILL);
    // A child stuck in the kernel is left behind rather than waited for.
    constexpr int kKillLimit = 1000;
    if (pidfd && ::poll(&entry, 1, kKillLimit) <= 0) return false;
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return ended;
}

}  // namespace

ProbeResult probe(const char* device, int milliseconds) {
  ProbeResult result;
  result.present = ::access(device, F_OK) == 0;
  UniqueFd fd(::open(device, O_RDWR | O_CLOEXEC));
  int error = errno;
  result.openable = bool(fd);
  if (!fd) {
    result.reason = result.present ? fmt::format("{} cannot be opened: {}", device, errnoText(error))
                                   : fmt::format("there is no {}", device);
    return result;
  }
  result.apiVersion = ::ioctl(fd.get(), KVM_GET_API_VERSION, 0);
  if (result.apiVersion != KVM_API_VERSION) {
    result.reason = fmt::format("{} does not speak KVM's API", device);
    return result;
  }
  void* page = ::mmap(nullptr, sizeof(ProbeReport), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) {
    result.reason = "no memory for the probe: " + errnoText(errno);
    return result;
  }
  auto* report = new (page) ProbeReport;
  pid_t pid = ::fork();
  if (pid == 0) probeChild(fd.get(), *report);
  if (pid < 0) {
    result.reason = "the probe's process cannot start: " + errnoText(errno);
  } else {
    judge(*report, await(pid, milliseconds), milliseconds, result);
  }
  ::munmap(page, sizeof(ProbeReport));
  return result;
}

}  // namespace lodge::kvm
