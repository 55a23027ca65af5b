// SPDX-License-Identifier: Apache-2.0
#include <limits.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "image/store.h"

namespace lodge {

namespace {

/// The part of a scatter list that is still to be transferred.
class Remaining {
 public:
  explicit Remaining(std::span<const iovec> vectors) : vectors_(vectors.begin(), vectors.end()) { skipEmpty(); }
  bool done() const { return first_ == vectors_.size(); }
  const iovec* data() const { return vectors_.data() + first_; }
  int count() const { return static_cast<int>(std::min<std::size_t>(vectors_.size() - first_, IOV_MAX)); }
  void advance(std::size_t bytes) {
    while (bytes != 0) {
      iovec& v = vectors_[first_];
      std::size_t part = std::min(bytes, v.iov_len);
      v.iov_base = static_cast<char*>(v.iov_base) + part;
      v.iov_len -= part;
      bytes -= part;
      skipEmpty();
    }
  }
  void zeroRest() {
    for (; first_ < vectors_.size(); ++first_) std::memset(vectors_[first_].iov_base, 0, vectors_[first_].iov_len);
  }

 private:
  void skipEmpty() {
    while (first_ < vectors_.size() && vectors_[first_].iov_len == 0) ++first_;
  }
  std::vector<iovec> vectors_;
  std::size_t first_ = 0;
};

}  // namespace

int readFully(int fd, std::uint64_t offset, std::span<const iovec> vectors, bool zeroFill) {
  Remaining rest(vectors);
  while (!rest.done()) {
    ssize_t n = ::preadv(fd, rest.data(), rest.count(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    if (n == 0) {
      if (!zeroFill) return EIO;
      rest.zeroRest();
      return 0;
    }
    offset += static_cast<std::uint64_t>(n);
    rest.advance(static_cast<std::size_t>(n));
  }
  return 0;
}

int writeFully(int fd, std::uint64_t offset, std::span<const iovec> vectors) {
  Remaining rest(vectors);
  while (!rest.done()) {
    ssize_t n = ::pwritev(fd, rest.data(), rest.count(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    if (n == 0) return EIO;
    offset += static_cast<std::uint64_t>(n);
    rest.advance(static_cast<std::size_t>(n));
  }
  return 0;
}

}  // namespace lodge
