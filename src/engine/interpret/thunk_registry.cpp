// SPDX-License-Identifier: Apache-2.0
#include "engine/interpret/thunk_registry.h"

#include "engine/interpret/thunk.h"

namespace lodge::interpret {

namespace {
struct Area {
  std::uint64_t start;
  std::uint64_t bytes;
};
Area gAreas[kMaxThunkAreas];
}  // namespace

bool registerThunkArea(std::byte* executable, std::size_t bytes) {
  for (Area& a : gAreas) {
    std::uint64_t free = 0;
    if (!__atomic_compare_exchange_n(&a.start, &free, reinterpret_cast<std::uint64_t>(executable), false,
                                     __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
      continue;
    }
    __atomic_store_n(&a.bytes, bytes, __ATOMIC_SEQ_CST);
    return true;
  }
  return false;
}

void unregisterThunkArea(std::byte* executable) {
  for (Area& a : gAreas) {
    if (__atomic_load_n(&a.start, __ATOMIC_SEQ_CST) != reinterpret_cast<std::uint64_t>(executable)) continue;
    __atomic_store_n(&a.bytes, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&a.start, 0, __ATOMIC_SEQ_CST);
  }
}

std::byte* thunkAreaOf(std::uint64_t ip) {
  for (const Area& a : gAreas) {
    std::uint64_t start = __atomic_load_n(&a.start, __ATOMIC_ACQUIRE);
    if (start != 0 && ip - start < __atomic_load_n(&a.bytes, __ATOMIC_ACQUIRE))
      return reinterpret_cast<std::byte*>(start);
  }
  return nullptr;
}

void* thunkFaultExit(std::uint64_t ip) {
  return thunkAreaOf(ip);
}

}  // namespace lodge::interpret
