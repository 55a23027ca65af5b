// SPDX-License-Identifier: Apache-2.0
// KVM's interface where <linux/kvm.h> is not enough for C++. Structures that end in a flexible array declare it by an
// empty structure, which has a size in C++ only: the numbers of their ioctls, which hold the structure's size, would
// come out wrong. Linux Documentation/virt/kvm/api.rst.
#pragma once

#include <linux/kvm.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace lodge::kvm {

/// The two 32-bit numbers before the entries of kvm_cpuid2, kvm_msrs, kvm_msr_list (one) and kvm_irq_routing.
inline constexpr std::size_t kListHeader = 8;

inline constexpr unsigned long kGetSupportedCpuid = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x05, kListHeader);
inline constexpr unsigned long kGetHypervCpuid = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0xc1, kListHeader);
inline constexpr unsigned long kSetCpuid2 = _IOC(_IOC_WRITE, KVMIO, 0x90, kListHeader);
inline constexpr unsigned long kGetMsrs = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x88, kListHeader);
inline constexpr unsigned long kSetMsrs = _IOC(_IOC_WRITE, KVMIO, 0x89, kListHeader);
inline constexpr unsigned long kSetGsiRouting = _IOC(_IOC_WRITE, KVMIO, 0x6a, kListHeader);

/// MSRs that KVM keeps along with a local APIC (SDM vol. 4, table 2-2; Linux Documentation/virt/kvm/x86/msr.rst).
namespace msr {
inline constexpr std::uint32_t apicBase = 0x1b, tscDeadline = 0x6e0, paravirtEoi = 0x4b56'4d04;
inline constexpr std::uint32_t stealTime = 0x4b56'4d03;  ///< which KVM keeps by itself
inline constexpr std::uint32_t featureControl = 0x3a;
}  // namespace msr

/// struct kvm_nested_state without what may follow it, 128 bytes.
struct NestedHeader {
  std::uint16_t flags, format;
  std::uint32_t size;
  std::uint8_t addresses[120];
};
static_assert(sizeof(NestedHeader) == 128);
inline constexpr unsigned long kGetNestedState = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0xbe, sizeof(NestedHeader));
inline constexpr unsigned long kSetNestedState = _IOC(_IOC_WRITE, KVMIO, 0xbf, sizeof(NestedHeader));

/// struct kvm_xsave without what may follow it.
struct XsaveArea {
  std::uint32_t region[1024];
};
inline constexpr unsigned long kGetXsave = _IOC(_IOC_READ, KVMIO, 0xa4, sizeof(XsaveArea));
inline constexpr unsigned long kSetXsave = _IOC(_IOC_WRITE, KVMIO, 0xa5, sizeof(XsaveArea));

/// ioctl() that begins again after a signal. KVM_RUN is not called by it.
template <class T>
int call(int fd, unsigned long request, T argument) {
  int result;
  do {
    result = ::ioctl(fd, request, argument);
  } while (result < 0 && errno == EINTR);
  return result;
}
inline int call(int fd, unsigned long request) {
  return call(fd, request, 0UL);
}

/// A structure of KVM's with a count, a second number and `T`s behind them.
template <class T>
class EntryList {
 public:
  explicit EntryList(std::size_t entries) : words_(1 + (entries * sizeof(T) + 7) / 8) {
    setCount(static_cast<std::uint32_t>(entries));
  }
  std::uint32_t count() const {
    std::uint32_t n;
    std::memcpy(&n, words_.data(), sizeof n);
    return n;
  }
  void setCount(std::uint32_t n) { std::memcpy(words_.data(), &n, sizeof n); }
  void* data() { return words_.data(); }
  T* entries() { return reinterpret_cast<T*>(words_.data() + 1); }
  T* begin() { return entries(); }
  T* end() { return entries() + count(); }

 private:
  std::vector<std::uint64_t> words_;
};
using CpuidList = EntryList<kvm_cpuid_entry2>;
using MsrList = EntryList<kvm_msr_entry>;
using RoutingList = EntryList<kvm_irq_routing_entry>;

}  // namespace lodge::kvm
