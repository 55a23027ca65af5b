// SPDX-License-Identifier: Apache-2.0
#include "virtio/entropy.h"

#include <sys/random.h>

#include <algorithm>

namespace lodge::virtio {

void EntropyDevice::notify(unsigned queue) {
  // More than a request's worth at once is no use to a driver and would hold its vCPU up.
  constexpr std::size_t kMaxBytes = 64 << 10;
  drain(queue, [&](Chain chain) {
    std::size_t done = 0;
    for (const iovec& v : chain.writable) {
      std::size_t wanted = std::min(v.iov_len, kMaxBytes - done);
      ssize_t got = wanted == 0 ? 0 : ::getrandom(v.iov_base, wanted, 0);
      if (got > 0) done += static_cast<std::size_t>(got);
      if (got != static_cast<ssize_t>(v.iov_len)) break;
    }
    finish(queue, std::move(chain), static_cast<std::uint32_t>(done));
  });
}

}  // namespace lodge::virtio
