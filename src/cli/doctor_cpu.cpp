// SPDX-License-Identifier: Apache-2.0
#include <sched.h>

#include <algorithm>
#include <set>

#include "base/text.h"
#include "cli/doctor.h"
#include "cli/host_files.h"
#include "engine/choose.h"
#include "engine/kvm/probe.h"

namespace lodge::cli {

namespace {

using Grade = Finding::Grade;

/// The first processor's value of a field of /proc/cpuinfo.
std::string cpuField(const std::string& field) {
  for (std::string_view line : split(cpuinfo(), '\n')) {
    std::size_t colon = line.find(':');
    if (colon != std::string_view::npos && line.starts_with(field) &&
        line.find_first_not_of(" \t", field.size()) == colon) {
      return std::string(line.substr(std::min(colon + 2, line.size())));
    }
  }
  return {};
}

std::set<std::string> cpuFlags() {
  std::set<std::string> flags;
  std::string text = cpuField("flags");
  for (std::string_view flag : split(text, ' ')) flags.emplace(flag);
  return flags;
}

unsigned usableCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return ::sched_getaffinity(0, sizeof set, &set) == 0 ? static_cast<unsigned>(CPU_COUNT(&set)) : 1;
}

}  // namespace

Finding examineProcessor() {
  std::string model = cpuField("model name");
  unsigned cpus = usableCpus();
  return {
      .key = "processor",
      .title = "Processor",
      .text = fmt::format("{}, {} core{} for machines", model.empty() ? "unknown" : model, cpus, cpus == 1 ? "" : "s"),
      .facts = {{"model", model}, {"vendor", cpuField("vendor_id")}, {"cores", cpus}}};
}

Finding examineVirtualization() {
  auto flags = cpuFlags();
  Finding finding{.key = "hardwareVirtualization", .title = "Hardware virtualization"};
  finding.facts = {
      {"vmx", flags.contains("vmx")}, {"svm", flags.contains("svm")}, {"hypervisor", flags.contains("hypervisor")}};
  if (flags.contains("vmx") || flags.contains("svm")) {
    finding.text = flags.contains("vmx") ? "vmx (Intel VT-x)" : "svm (AMD-V)";
  } else {
    finding.grade = Grade::note;
    finding.text = flags.contains("hypervisor")
                       ? "neither vmx nor svm: this host is itself a virtual machine, without nesting"
                       : "neither vmx nor svm: the processor has none, or the firmware turned it off";
  }
  return finding;
}

Finding examineInstructions() {
  auto flags = cpuFlags();
  // What the translator's code uses, and what the guest CPU models pass through.
  Finding finding{.key = "instructions", .title = "Instructions"};
  std::string have;
  std::string lack;
  for (const char* flag : {"bmi1", "bmi2", "fsgsbase", "avx2", "fma", "xsave", "erms"}) {
    bool there = flags.contains(flag);
    finding.facts[flag] = there;
    (there ? have : lack) += std::string(" ") + flag;
  }
  finding.text = lack.empty() ? "all that Lodge uses:" + have : "missing:" + lack;
  bool v3 = flags.contains("bmi2") && flags.contains("avx2") && flags.contains("fma");
  if (!lack.empty()) finding.grade = Grade::note;
  if (!flags.contains("bmi1") || !flags.contains("bmi2"))
    finding.text += "; translated code takes shifts and masks for BMI";
  if (!flags.contains("fsgsbase")) finding.text += "; arch_prctl sets segment bases";
  bool v4 = true;
  for (const char* flag : {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}) v4 = v4 && flags.contains(flag);
  finding.facts["avx512"] = v4;
  finding.text += v4 ? "; guests have AVX-512" : "; no AVX-512, for guests neither";
  if (!v3) finding.text += "; guests need --cpu x86-64-v2 here";
  return finding;
}

Finding examineKvm(const kvm::ProbeResult& result) {
  Finding finding{.key = "kvm", .title = "/dev/kvm", .grade = result.usable ? Grade::good : Grade::note};
  finding.text = result.present && result.openable && !result.usable ? "opens, but " + result.reason : result.reason;
  finding.facts = {{"present", result.present},
                   {"openable", result.openable},
                   {"apiVersion", result.apiVersion},
                   {"usable", result.usable},
                   {"reason", result.reason},
                   {"instructionsPerSecond", static_cast<std::uint64_t>(result.instructionsPerSecond)}};
  return finding;
}

Finding examineEngines(const kvm::ProbeResult& result) {
  EnginesBuilt built = enginesBuilt();
  Finding finding{.key = "engines", .title = "Engines", .text = {}};
  std::string kvm = "usable";
  if (!result.usable) {
    const char* advice = "; a host with a KVM that works, or a newer kernel, has it";
    if (!result.present) advice = "; the modules of KVM's make it, where the processor has vmx or svm";
    if (result.present && !result.openable) advice = "; 'usermod -aG kvm USER' and a new login give the right to it";
    kvm = "not usable (" + result.reason + ")" + advice;
  }
  std::string translate = built.translate ? "usable" : "not in this version; a build for x86-64 has it";
  finding.facts = {{"kvm", {{"usable", result.usable}, {"text", kvm}}},
                   {"translate", {{"usable", built.translate}, {"text", translate}}},
                   {"interpret", {{"usable", true}, {"text", "usable"}}}};
  finding.text = "kvm: " + kvm + "; translate: " + translate + "; interpret: usable";
  return finding;
}

Finding examineEngine(const kvm::ProbeResult& result) {
  Finding finding{.key = "engine", .title = "Engine"};
  EnginesBuilt built = enginesBuilt();
  auto choice = chooseEngine("auto", built, [&] { return result; });
  if (!choice) {
    finding.grade = Grade::bad;
    finding.text = choice.error().message();
    return finding;
  }
  finding.text = fmt::format("a machine gets '{}', because {}", choice->name, choice->reason);
  finding.facts = {{"choice", choice->name}, {"reason", choice->reason}};
  return finding;
}

}  // namespace lodge::cli
