// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace lodge::image {

inline std::uint64_t totalBytes(std::span<const iovec> vectors) {
  std::uint64_t length = 0;
  for (const iovec& v : vectors) length += v.iov_len;
  return length;
}

/// Walks through a scatter list piece by piece.
class VectorCursor {
 public:
  explicit VectorCursor(std::span<const iovec> vectors) : vectors_(vectors) {}

  /// The next `length` bytes as a list of their own, valid until the next call.
  std::span<const iovec> take(std::uint64_t length) {
    piece_.clear();
    forParts(length, [&](void* at, std::size_t n) { piece_.push_back({at, n}); });
    return piece_;
  }
  void zero(std::uint64_t length) {
    forParts(length, [](void* at, std::size_t n) { std::memset(at, 0, n); });
  }
  void copyIn(const void* from, std::uint64_t length) {
    const char* p = static_cast<const char*>(from);
    forParts(length, [&](void* at, std::size_t n) {
      std::memcpy(at, p, n);
      p += n;
    });
  }

 private:
  template <class F>
  void forParts(std::uint64_t length, F&& part) {
    while (length != 0) {
      const iovec& v = vectors_[index_];
      std::size_t n = std::min<std::uint64_t>(length, v.iov_len - inside_);
      if (n != 0) part(static_cast<char*>(v.iov_base) + inside_, n);
      inside_ += n;
      length -= n;
      if (inside_ == v.iov_len) ++index_, inside_ = 0;
    }
  }

  std::span<const iovec> vectors_;
  std::size_t index_ = 0, inside_ = 0;
  std::vector<iovec> piece_;
};

/// Whether all bytes are zero; as fast as memory.
inline bool isZero(const void* data, std::size_t length) {
  const char* p = static_cast<const char*>(data);
  if (length < 16) {
    for (std::size_t i = 0; i < length; ++i) {
      if (p[i] != 0) return false;
    }
    return true;
  }
  return std::memcmp(p, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16) == 0 && std::memcmp(p, p + 16, length - 16) == 0;
}

}  // namespace lodge::image
