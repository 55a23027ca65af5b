// SPDX-License-Identifier: Apache-2.0
#include "base/trace.h"

#include <algorithm>
#include <atomic>
#include <iterator>

#include "base/text.h"

namespace lodge {

namespace {
constexpr std::string_view kWithout = "host-without=";
std::atomic<std::uint32_t> withheld{0};

Status readHostFeatures(std::string_view list, std::uint32_t& bits) {
  for (std::string_view part : split(list, ',')) {
    if (!part.starts_with(kWithout)) continue;
    for (std::string_view name : split(part.substr(kWithout.size()), '+')) {
      const auto* at = std::find(std::begin(kHostFeatureNames), std::end(kHostFeatureNames), name);
      if (at == std::end(kHostFeatureNames)) {
        return Error(ErrorKind::notFound, "--trace host-without=" + std::string(name) + ": there is no such feature")
            .withHint("there are " + join({std::begin(kHostFeatureNames), std::end(kHostFeatureNames)}, ", "));
      }
      bits |= 1u << (at - std::begin(kHostFeatureNames));
    }
  }
  return {};
}
}  // namespace

bool traces(std::string_view list, std::string_view what) {
  auto parts = split(list, ',');
  return std::find(parts.begin(), parts.end(), what) != parts.end();
}

Status checkHostFeatures(std::string_view list) {
  std::uint32_t bits = 0;
  return readHostFeatures(list, bits);
}

Status withholdHostFeatures(std::string_view list) {
  std::uint32_t bits = 0;
  if (Status read = readHostFeatures(list, bits); !read) return read;
  withheld.fetch_or(bits, std::memory_order_relaxed);
  return {};
}

bool isWithheld(HostFeature feature) {
  return (withheld.load(std::memory_order_relaxed) >> static_cast<unsigned>(feature) & 1) != 0;
}

}  // namespace lodge
