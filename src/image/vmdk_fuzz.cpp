// SPDX-License-Identifier: Apache-2.0
#include "image/drivers.h"
#include "image/image_fuzz_kit.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  // Streams have their footer at the end; the others may be longer than what is given.
  bool longer = size != 0 && (data[size - 1] & 1) != 0;
  lodge::image::fuzzImage(lodge::image::vmdkDriver(), {bytes, bytes + size}, longer ? 16 << 20 : 0);
  return 0;
}
