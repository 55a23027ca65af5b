// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "image/drivers.h"
#include "image/image_fuzz_kit.h"
#include "image/vhd_layout.h"

namespace {

using namespace lodge::image;

/// Checksums are made right: no mutation would find them.
template <class T>
void mend(std::vector<std::byte>& bytes, std::size_t at) {
  if (at > bytes.size() || bytes.size() - at < sizeof(T)) return;
  T object{};
  std::memcpy(&object, bytes.data() + at, sizeof object);
  object.checksum = vhd::checksumOf(object);
  std::memcpy(bytes.data() + at, &object, sizeof object);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const auto* raw = reinterpret_cast<const std::byte*>(data);
  std::vector<std::byte> bytes(raw, raw + size);
  mend<vhd::Footer>(bytes, 0);
  mend<vhd::Header>(bytes, 512);
  if (size >= 512) mend<vhd::Footer>(bytes, size - 512);
  fuzzImage(vhdDriver(), bytes, size % 2 == 0 ? 0 : 16 << 20);
  return 0;
}
