// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

namespace lodge::image {

/// Walks a scatter list front to back in parts: each take() is the next part as a list of its own.
class IoCursor {
 public:
  explicit IoCursor(std::span<const iovec> vectors) : vectors_(vectors) {}

  /// The next `bytes`, valid until the next call. The caller never takes more than there is.
  std::span<const iovec> take(std::size_t bytes) {
    part_.clear();
    append(bytes, part_);
    return part_;
  }
  /// The same, behind what `to` has.
  void append(std::size_t bytes, std::vector<iovec>& to) {
    while (bytes != 0 && index_ < vectors_.size()) {
      const iovec& v = vectors_[index_];
      std::size_t part = std::min(bytes, v.iov_len - used_);
      if (part != 0) to.push_back({static_cast<char*>(v.iov_base) + used_, part});
      bytes -= part;
      used_ += part;
      if (used_ == v.iov_len) {
        ++index_;
        used_ = 0;
      }
    }
  }

 private:
  std::span<const iovec> vectors_;
  std::size_t index_ = 0, used_ = 0;
  std::vector<iovec> part_;
};

inline std::size_t bytesIn(std::span<const iovec> vectors) {
  std::size_t total = 0;
  for (const iovec& v : vectors) total += v.iov_len;
  return total;
}

inline void fillZero(std::span<const iovec> vectors) {
  for (const iovec& v : vectors) std::memset(v.iov_base, 0, v.iov_len);
}

/// Fills `to` from `from`, which has at least as many bytes.
inline void scatter(const std::byte* from, std::span<const iovec> to) {
  for (const iovec& v : to) {
    std::memcpy(v.iov_base, from, v.iov_len);
    from += v.iov_len;
  }
}

}  // namespace lodge::image
