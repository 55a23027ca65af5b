// SPDX-License-Identifier: Apache-2.0
// What else of the host machines may use: large pages, shared pages, devices, bridges.
#include <fmt/format.h>
#include <linux/capability.h>

#include <cstdlib>
#include <filesystem>

#include "cli/doctor.h"
#include "cli/host_files.h"

namespace lodge::cli {

namespace {

using Grade = Finding::Grade;

/// The word in brackets: "always [madvise] never".
std::string chosen(const std::string& choices) {
  std::size_t begin = choices.find('['), end = choices.find(']');
  return begin == std::string::npos || end < begin ? std::string() : choices.substr(begin + 1, end - begin - 1);
}

std::size_t entries(const std::string& folder) {
  std::error_code error;
  std::size_t count = 0;
  for (std::filesystem::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) ++count;
  return count;
}

bool hasCapability(unsigned number) {
  // CapEff of /proc/self/status, a mask.
  std::string status = hostFile("/proc/self/status");
  std::size_t at = status.find("CapEff:");
  if (at == std::string::npos) return false;
  return (std::strtoull(status.c_str() + at + 7, nullptr, 16) >> number & 1) != 0;
}

}  // namespace

Finding examineHugePages() {
  const std::string kFolder = "/sys/kernel/mm/transparent_hugepage/";
  std::string anonymous = chosen(hostFile(kFolder + "enabled")), shared = chosen(hostFile(kFolder + "shmem_enabled"));
  std::uint64_t reserved = hostNumber("/proc/sys/vm/nr_hugepages").value_or(0);
  Finding finding{.key = "hugePages", .title = "Huge pages", .text = {}};
  finding.facts = {{"transparent", anonymous}, {"transparentShared", shared}, {"reserved", reserved}};
  if (anonymous.empty()) {
    finding.grade = Grade::note;
    finding.text = "the kernel has no transparent ones";
  } else {
    finding.text = fmt::format("transparent: {}; in shared memory, where guests' RAM is: {}", anonymous,
                               shared.empty() ? "never" : shared);
    // src/memory/huge_file.h
    if (shared == "never" && hasCapability(CAP_SYS_ADMIN))
      finding.text += ", but engine kvm's guests of this user get them on advice";
    else if (shared == "never")
      finding.text += fmt::format(" ('echo advise >{}shmem_enabled': for engine kvm)", kFolder);
  }
  std::uint64_t free = hostNumber("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").value_or(0);
  finding.facts["free"] = free;
  finding.text += fmt::format("; {} of 2M set aside, {} of them free, for --hugepages", reserved, free);
  if (reserved == 0) finding.text += " ('sysctl vm.nr_hugepages=N')";
  return finding;
}

Finding examineKsm() {
  auto run = hostNumber("/sys/kernel/mm/ksm/run");
  std::uint64_t sharing = hostNumber("/sys/kernel/mm/ksm/pages_sharing").value_or(0);
  Finding finding{.key = "ksm", .title = "Same-page merging", .text = {}};
  finding.facts = {{"available", run.has_value()}, {"running", run.value_or(0) == 1}, {"pagesSharing", sharing}};
  finding.grade = run.value_or(0) == 1 ? Grade::good : Grade::note;
  finding.text = !run        ? "not in this kernel"
                 : *run == 1 ? fmt::format("runs, {} pages saved", sharing)
                             : "off; guests' RAM is not merged";
  return finding;
}

Finding examineIommu() {
  std::size_t groups = entries("/sys/kernel/iommu_groups");
  Finding finding{.key = "iommu", .title = "IOMMU", .grade = groups != 0 ? Grade::good : Grade::note, .text = {}};
  finding.facts = {{"groups", groups}};
  finding.text = groups != 0 ? fmt::format("{} groups", groups)
                             : "no groups: no device of this host can be given to a guest, and Lodge needs none";
  return finding;
}

Finding examineBridges() {
  std::vector<std::string> bridges;
  std::error_code error;
  for (std::filesystem::directory_iterator at("/sys/class/net", error), end; !error && at != end; at.increment(error)) {
    std::error_code ignored;
    if (std::filesystem::exists(at->path() / "bridge", ignored)) bridges.push_back(at->path().filename());
  }
  bool mayAttach = hasCapability(CAP_NET_ADMIN);
  Finding finding{.key = "bridges", .title = "Bridges", .text = {}};
  finding.grade = mayAttach && !bridges.empty() ? Grade::good : Grade::note;
  finding.facts = {{"names", bridges}, {"mayAttach", mayAttach}};
  std::string names;
  for (const std::string& bridge : bridges) names += " " + bridge;
  finding.text = bridges.empty() ? "none" : "there are" + names;
  finding.text +=
      mayAttach ? "; taps may be attached" : "; attaching taps needs CAP_NET_ADMIN; --net user needs nothing";
  return finding;
}

}  // namespace lodge::cli
