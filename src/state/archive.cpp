// SPDX-License-Identifier: Apache-2.0
#include "state/archive.h"

#include <algorithm>
#include <cstring>

namespace lodge::state {

void Archive::integer(std::uint64_t& value, unsigned size) {
  std::array<std::byte, 8> raw{};
  for (unsigned i = 0; i < size && !loading_; ++i) raw[i] = static_cast<std::byte>(value >> (8 * i));
  bytes(std::span(raw).first(size));
  if (!loading_) return;
  value = 0;
  for (unsigned i = 0; i < size; ++i) value |= std::to_integer<std::uint64_t>(raw[i]) << (8 * i);
}

void Archive::bytes(std::span<std::byte> data) {
  if (!loading_) {
    to_.insert(to_.end(), data.begin(), data.end());
    return;
  }
  if (data.size() > from_.size()) fail("it ends too early");
  if (!ok()) {
    std::ranges::fill(data, std::byte{0});
    return;
  }
  std::ranges::copy(from_.first(data.size()), data.begin());
  from_ = from_.subspan(data.size());
}

std::size_t Archive::count(std::size_t number, std::size_t most, std::string_view what) {
  std::uint64_t raw = number;
  integer(raw, 4);
  require(raw <= most, what);
  return ok() ? static_cast<std::size_t>(raw) : 0;
}

void Archive::compound(std::string& text) {
  // What is left bounds what is allocated.
  std::size_t length = count(text.size(), loading_ ? std::min(kMostText, from_.size()) : kMostText, "a text's length");
  if (loading_) text.resize(length);
  bytes(std::as_writable_bytes(std::span(text)));
}

void Archive::compound(std::vector<std::uint8_t>& data) {
  std::size_t length = count(data.size(), loading_ ? from_.size() : data.size(), "the length of data");
  if (loading_) data.resize(length);
  bytes(std::as_writable_bytes(std::span(data)));
}

void Archive::compound(std::vector<std::string>& texts) {
  constexpr std::size_t kMost = 4096;
  std::size_t number = count(texts.size(), kMost, "a number of texts");
  if (loading_) texts.assign(number, {});
  for (std::string& text : texts) field(text);
}

Status Archive::finish() const {
  if (!ok()) return Error(ErrorKind::corrupt, problem_);
  if (loading_ && !from_.empty()) return Error(ErrorKind::corrupt, "it is longer than it should be");
  return {};
}

}  // namespace lodge::state
