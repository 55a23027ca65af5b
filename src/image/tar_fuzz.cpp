// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "image/tar.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const auto* raw = reinterpret_cast<const std::byte*>(data);
  auto file = lodge::image::makeMemoryFile("archive", {raw, size});
  (void)lodge::image::tar::readIndex(*file);
  return 0;
}
