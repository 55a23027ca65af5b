// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/text.h"
#include "base/units.h"
#include "image/utf16.h"
#include "image/vhd_image.h"

namespace lodge::image::vhd {

namespace {

constexpr std::uint32_t kMostName = 4096;  ///< bytes of a locator's text

void addName(std::vector<std::string>& names, std::string name) {
  if (!name.empty() && std::count(names.begin(), names.end(), name) == 0) names.push_back(std::move(name));
}

}  // namespace

Result<std::vector<std::string>> parentNames(BlockFile& file, const Header& header) {
  std::vector<std::string> relative, other;
  for (const Locator& locator : header.locators) {
    if (locator.platform != kRelative && locator.platform != kAbsolute) continue;
    if (locator.length > kMostName || locator.offset > file.size()) {
      return Error(ErrorKind::corrupt, "a parent locator lies outside the file");
    }
    std::vector<Le16> text(locator.length / 2);
    if (int error = file.read(locator.offset, text.data(), text.size() * 2); error != 0) {
      return Error::fromErrno(error, "read a parent locator");
    }
    auto name = fromUtf16(std::u16string(text.begin(), text.end()));
    if (!name) return Error(ErrorKind::corrupt, "a parent locator is not UTF-16");
    addName(locator.platform == kRelative ? relative : other, fromWindowsPath(*name));
  }
  auto plain = fromUtf16(std::u16string(header.parentName.begin(), header.parentName.end()));
  if (!plain) return Error(ErrorKind::corrupt, "the parent's name is not UTF-16");
  addName(other, fromWindowsPath(*plain));
  for (std::string& name : other) addName(relative, std::move(name));
  if (relative.empty()) return Error(ErrorKind::corrupt, "a differencing image that names no parent");
  return relative;
}

Status setParent(Header& header, const std::string& name, std::uint64_t textOffset, std::vector<std::byte>& text) {
  auto wide = toUtf16(fileNameOf(name));
  auto relative = toUtf16(toWindowsPath(name));
  if (!wide || !relative) {
    return Error(ErrorKind::invalidArgument, fmt::format("parent {}: its name is not UTF-8", inQuotes(name)));
  }
  if (wide->size() >= header.parentName.size() || relative->size() * 2 > kMostName) {
    return Error(ErrorKind::invalidArgument, fmt::format("parent {}: its name is too long", inQuotes(name)));
  }
  header.parentName = {};
  std::copy(wide->begin(), wide->end(), header.parentName.begin());
  header.locators = {};
  text.assign(kParentTextBytes, std::byte{0});
  auto put = [&](std::size_t index, std::uint32_t platform, std::uint64_t at) {
    Locator& locator = header.locators[index];
    locator.platform = platform;
    locator.space = static_cast<std::uint32_t>(alignUp(relative->size() * 2, kSector));
    locator.length = static_cast<std::uint32_t>(relative->size() * 2);
    locator.offset = textOffset + at;
    for (std::size_t i = 0; i < relative->size(); ++i) storeLe<std::uint16_t>(text.data() + at + i * 2, (*relative)[i]);
  };
  put(0, name.starts_with("/") ? kAbsolute : kRelative, 0);
  header.checksum = checksumOf(header);
  return {};
}

}  // namespace lodge::image::vhd
