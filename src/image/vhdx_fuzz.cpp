// SPDX-License-Identifier: Apache-2.0
// The input is the parts of a VHDX that say something, one after the other; they are put where they belong.
#include <cstring>

#include "image/drivers.h"
#include "image/image_fuzz_kit.h"
#include "image/vhdx_layout.h"

namespace {

using namespace lodge;
using namespace lodge::image;

constexpr std::size_t kPart = 4096;
/// Headers, region table, metadata table, items, block table, log.
constexpr std::uint64_t kPlaces[] = {64_KiB, 128_KiB, 192_KiB, 2_MiB, 2_MiB + 64_KiB, 3_MiB};
constexpr std::uint64_t kLog = 1_MiB;

void mend(std::vector<std::byte>& bytes, std::uint64_t at, std::size_t length) {
  storeLe<std::uint32_t>(bytes.data() + at + 4, vhdx::checksumOf(std::span(bytes).subspan(at, length)));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  std::vector<std::byte> bytes(4_MiB);
  std::memcpy(bytes.data(), "vhdxfile", 8);
  std::size_t taken = 0;
  auto take = [&](std::uint64_t at, std::size_t length) {
    std::size_t n = std::min(length, size - taken);
    std::memcpy(bytes.data() + at, data + taken, n);
    taken += n;
  };
  for (std::uint64_t place : kPlaces) take(place, kPart);
  take(kLog, 1_MiB);
  for (std::uint64_t at = kLog; at < kLog + 1_MiB; at += kPart) {
    if (std::memcmp(bytes.data() + at, "loge", 4) != 0) continue;
    std::uint64_t length = loadLe<std::uint32_t>(bytes.data() + at + 8);
    if (length >= 64 && length <= kLog + 1_MiB - at) mend(bytes, at, length);
  }
  mend(bytes, 64_KiB, vhdx::kHeaderBytes);
  mend(bytes, 128_KiB, vhdx::kHeaderBytes);
  mend(bytes, 192_KiB, vhdx::kRegionTableBytes);
  fuzzImage(vhdxDriver(), bytes, 24_MiB);
  return 0;
}
