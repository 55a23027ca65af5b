// SPDX-License-Identifier: Apache-2.0
// Big-endian fields and scattered buffers, as SCSI commands have them.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "storage/scsi_unit.h"

namespace lodge::scsi {

inline std::uint64_t be(const std::uint8_t* bytes, unsigned size) {
  std::uint64_t value = 0;
  for (unsigned n = 0; n < size; ++n) value = value << 8 | bytes[n];
  return value;
}

inline void put(std::vector<std::uint8_t>& out, std::uint64_t value, unsigned size) {
  for (unsigned n = size; n-- > 0;) out.push_back(static_cast<std::uint8_t>(value >> (8 * n)));
}
inline void putText(std::vector<std::uint8_t>& out, std::string_view text, unsigned size) {
  for (unsigned n = 0; n < size; ++n) out.push_back(static_cast<std::uint8_t>(n < text.size() ? text[n] : ' '));
}

inline std::uint64_t bytesIn(std::span<const iovec> vectors) {
  std::uint64_t total = 0;
  for (const iovec& v : vectors) total += v.iov_len;
  return total;
}

/// Copies to the vectors from offset `at` on; returns how much there was room for.
inline std::size_t scatter(std::span<const iovec> to, std::size_t at, std::span<const std::uint8_t> from) {
  std::size_t done = 0;
  for (const iovec& v : to) {
    if (at >= v.iov_len) {
      at -= v.iov_len;
      continue;
    }
    std::size_t part = std::min(v.iov_len - at, from.size() - done);
    std::memcpy(static_cast<std::uint8_t*>(v.iov_base) + at, from.data() + done, part);
    done += part;
    at = 0;
  }
  return done;
}
inline std::vector<std::uint8_t> gather(std::span<const iovec> from, std::size_t most) {
  std::vector<std::uint8_t> all;
  for (const iovec& v : from) {
    auto* first = static_cast<const std::uint8_t*>(v.iov_base);
    all.insert(all.end(), first, first + std::min(v.iov_len, most - all.size()));
  }
  return all;
}

/// Ends a command with data, of which the initiator takes at most `limit` bytes.
inline void answer(const ScsiCommand& command, std::vector<std::uint8_t> data, std::uint64_t limit,
                   const ScsiUnit::Completion& done) {
  data.resize(std::min<std::uint64_t>(data.size(), limit));
  ScsiResult result;
  result.moved = scatter(command.toInitiator, 0, data);
  result.overrun = result.moved < data.size();
  done(result);
}

}  // namespace lodge::scsi
