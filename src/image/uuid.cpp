// SPDX-License-Identifier: Apache-2.0
#include "image/uuid.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <algorithm>
#include <random>

namespace lodge::image {

namespace {

Uuid swapped(Uuid uuid) {
  std::reverse(uuid.begin(), uuid.begin() + 4);
  std::swap(uuid[4], uuid[5]);
  std::swap(uuid[6], uuid[7]);
  return uuid;
}

}  // namespace

Uuid randomUuid(bool mixed) {
  Uuid uuid{};
  if (::getrandom(uuid.data(), uuid.size(), 0) != static_cast<ssize_t>(uuid.size())) {
    std::random_device device;
    for (std::byte& b : uuid) b = static_cast<std::byte>(device());
  }
  uuid[6] = (uuid[6] & std::byte{0x0f}) | std::byte{0x40};
  uuid[8] = (uuid[8] & std::byte{0x3f}) | std::byte{0x80};
  return mixed ? swapped(uuid) : uuid;
}

std::string formatUuid(const Uuid& uuid, bool mixed) {
  Uuid u = mixed ? swapped(uuid) : uuid;
  std::string text;
  for (std::size_t i = 0; i < u.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", static_cast<unsigned>(u[i]));
  }
  return text;
}

}  // namespace lodge::image
