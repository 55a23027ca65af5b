// SPDX-License-Identifier: Apache-2.0
#include "engine/kvm/statistics.h"

#include <linux/kvm.h>
#include <unistd.h>

#include <cstring>

namespace lodge::kvm {

std::string exitReasonName(std::size_t reason) {
  switch (reason) {
    case KVM_EXIT_IO:
      return "io";
    case KVM_EXIT_MMIO:
      return "mmio";
    case KVM_EXIT_HLT:
      return "hlt";
    case KVM_EXIT_IRQ_WINDOW_OPEN:
      return "interrupt_window";
    case KVM_EXIT_INTR:
      return "signal";
    case KVM_EXIT_SET_TPR:
      return "task_priority";
    case KVM_EXIT_X86_RDMSR:
      return "rdmsr";
    case KVM_EXIT_X86_WRMSR:
      return "wrmsr";
    case KVM_EXIT_SHUTDOWN:
      return "shutdown";
    case KVM_EXIT_IOAPIC_EOI:
      return "ioapic_eoi";
    default:
      return std::to_string(reason);
  }
}

// Linux Documentation/virt/kvm/api.rst, 4.133: a header, and descriptors with names of a fixed size behind them.
std::vector<std::pair<std::string, std::uint64_t>> readStatistics(int fd) {
  std::vector<std::pair<std::string, std::uint64_t>> all;
  kvm_stats_header header{};
  if (fd < 0 || ::pread(fd, &header, sizeof header, 0) != static_cast<ssize_t>(sizeof header)) return all;
  constexpr std::uint32_t kSaneDescriptors = 1024, kSaneName = 256;
  if (header.num_desc > kSaneDescriptors || header.name_size > kSaneName) return all;
  // The descriptor's declared size has, in C++, a part of its name in it.
  constexpr std::size_t kFixed = 16;
  std::vector<char> bytes(header.num_desc * (kFixed + header.name_size));
  if (::pread(fd, bytes.data(), bytes.size(), header.desc_offset) != static_cast<ssize_t>(bytes.size())) return all;
  for (std::uint32_t i = 0; i < header.num_desc; ++i) {
    const char* at = bytes.data() + i * (kFixed + header.name_size);
    kvm_stats_desc descriptor{};
    std::memcpy(&descriptor, at, kFixed);
    std::uint64_t value = 0;
    if (descriptor.size != 1) continue;  // histograms
    if (::pread(fd, &value, sizeof value, header.data_offset + descriptor.offset) != static_cast<ssize_t>(sizeof value))
      continue;
    if (value == 0) continue;
    const char* name = at + kFixed;
    all.emplace_back("kvm." + std::string(name, ::strnlen(name, header.name_size)), value);
  }
  return all;
}

}  // namespace lodge::kvm
