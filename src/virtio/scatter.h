// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <cstring>
#include <vector>

namespace lodge::virtio {

/// Takes `length` bytes off the front of a scatter list into `to`. False: it is shorter.
inline bool takeFront(std::vector<iovec>& vectors, void* to, std::size_t length) {
  auto* out = static_cast<char*>(to);
  std::size_t used = 0;
  while (length != 0) {
    if (used == vectors.size()) return false;
    iovec& v = vectors[used];
    std::size_t part = std::min(length, v.iov_len);
    std::memcpy(out, v.iov_base, part);
    out += part;
    length -= part;
    v.iov_base = static_cast<char*>(v.iov_base) + part;
    v.iov_len -= part;
    if (v.iov_len == 0) ++used;
  }
  vectors.erase(vectors.begin(), vectors.begin() + static_cast<long>(used));
  return true;
}

/// Cuts `length` bytes off the front: they are what the result has. Short if the list is.
inline std::vector<iovec> cutFront(std::vector<iovec>& vectors, std::size_t length) {
  std::vector<iovec> front;
  std::size_t used = 0;
  while (length != 0 && used < vectors.size()) {
    iovec& v = vectors[used];
    std::size_t part = std::min(length, v.iov_len);
    front.push_back({v.iov_base, part});
    length -= part;
    v.iov_base = static_cast<char*>(v.iov_base) + part;
    v.iov_len -= part;
    if (v.iov_len == 0) ++used;
  }
  vectors.erase(vectors.begin(), vectors.begin() + static_cast<long>(used));
  return front;
}

/// Copies an object to the front of the list; what does not fit is left out.
template <class T>
void storeFront(const std::vector<iovec>& vectors, const T& object) {
  const auto* from = reinterpret_cast<const char*>(&object);
  std::size_t left = sizeof object;
  for (const iovec& v : vectors) {
    std::size_t part = std::min(left, v.iov_len);
    std::memcpy(v.iov_base, from, part);
    from += part;
    left -= part;
  }
}

}  // namespace lodge::virtio
