// SPDX-License-Identifier: Apache-2.0
#include "image/drivers.h"
#include "image/image_fuzz_kit.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  lodge::image::fuzzImage(lodge::image::vdiDriver(), {bytes, bytes + size}, 16 << 20);
  return 0;
}
