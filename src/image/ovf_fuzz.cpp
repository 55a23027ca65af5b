// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <string_view>

#include "image/ovf.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  auto package = lodge::image::ovf::parse(text);
  if (package) {
    for (const auto& machine : package->machines) {
      auto again = lodge::image::ovf::parse(lodge::image::ovf::write(machine));
      (void)again;
    }
  }
  (void)lodge::image::ovf::parseManifest(text);
  return 0;
}
