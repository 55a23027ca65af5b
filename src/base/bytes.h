// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

namespace lodge {

/// Reads a little-endian T at `p`, which need not be aligned.
template <class T>
inline T loadLe(const void* p) {
  static_assert(std::endian::native == std::endian::little && std::is_trivially_copyable_v<T>);
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

template <class T>
inline void storeLe(void* p, T value) {
  static_assert(std::endian::native == std::endian::little && std::is_trivially_copyable_v<T>);
  std::memcpy(p, &value, sizeof value);
}

template <class T>
inline T loadBe(const void* p) {
  T value = loadLe<T>(p);
  if constexpr (sizeof(T) == 2) return static_cast<T>(__builtin_bswap16(static_cast<std::uint16_t>(value)));
  if constexpr (sizeof(T) == 4) return static_cast<T>(__builtin_bswap32(static_cast<std::uint32_t>(value)));
  if constexpr (sizeof(T) == 8) return static_cast<T>(__builtin_bswap64(static_cast<std::uint64_t>(value)));
  return value;
}

/// The bytes of a trivially copyable object.
template <class T>
inline std::span<const std::byte> bytesOf(const T& object) {
  static_assert(std::is_trivially_copyable_v<T>);
  return std::as_bytes(std::span<const T, 1>(&object, 1));
}
template <class T>
inline std::span<std::byte> writableBytesOf(T& object) {
  static_assert(std::is_trivially_copyable_v<T>);
  return std::as_writable_bytes(std::span<T, 1>(&object, 1));
}

}  // namespace lodge
