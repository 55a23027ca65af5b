// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cctype>
#include <vector>

#include "base/text.h"
#include "image/drivers.h"
#include "image/format.h"

namespace lodge::image {

std::span<const FormatDriver* const> allFormats() {
  static const FormatDriver* const formats[] = {
      // clang-format off
      &qcow2Driver(),
      &vhdDriver(),
      &vhdxDriver(),
      &vmdkDriver(),
      &vdiDriver(),
      &rawDriver(),  // last: it takes what nobody else wants
      // clang-format on
  };
  return formats;
}

const FormatDriver* findFormat(std::string_view name) {
  for (const FormatDriver* format : allFormats()) {
    if (format->name == name || std::count(format->aliases.begin(), format->aliases.end(), name) != 0) return format;
  }
  return nullptr;
}

const FormatDriver* formatOfSuffix(std::string_view path) {
  std::string_view file = path.substr(path.rfind('/') + 1);
  std::size_t dot = file.rfind('.');
  if (dot == std::string_view::npos) return nullptr;
  std::string suffix(file.substr(dot + 1));
  for (char& c : suffix) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const FormatDriver* format : allFormats()) {
    if (std::count(format->suffixes.begin(), format->suffixes.end(), suffix) != 0) return format;
  }
  return nullptr;
}

Result<const FormatDriver*> formatNamed(std::string_view name) {
  if (const FormatDriver* format = findFormat(name)) return format;
  std::vector<std::string> names;
  for (const FormatDriver* format : allFormats()) names.emplace_back(format->name);
  return Error(ErrorKind::invalidArgument, "unknown image format " + inQuotes(name))
      .withHint("use " + join(names, ", "));
}

Result<const FormatDriver*> probeFormat(BlockFile& file) {
  constexpr std::size_t kPart = 4096;
  std::vector<std::byte> head(std::min<std::uint64_t>(kPart, file.size())), tail(head.size());
  int error = file.read(0, head.data(), head.size());
  if (error == 0) error = file.read(file.size() - tail.size(), tail.data(), tail.size());
  if (error != 0) return Error::fromErrno(error, "read " + inQuotes(file.name()));
  Probe probe{head, tail, file.size(), file.name()};
  const FormatDriver* best = allFormats().back();
  int score = 0;
  for (const FormatDriver* format : allFormats()) {
    int sure = format->probe ? format->probe(probe) : 0;
    if (sure > score) best = format, score = sure;
  }
  return best;
}

std::string CreateRequest::option(std::string_view name, std::string_view otherwise) const {
  auto it = options.find(std::string(name));
  return it == options.end() ? std::string(otherwise) : it->second;
}

Result<std::uint64_t> sizeOption(const CreateRequest& request, std::string_view name, std::uint64_t otherwise) {
  std::string text = request.option(name);
  if (text.empty()) return otherwise;
  if (auto plain = parseNumber(text)) return *plain;
  auto size = parseSize(text);
  if (!size) return std::move(size).error().context(fmt::format("option {}", name));
  return *size;
}

Result<bool> switchOption(const CreateRequest& request, std::string_view name, bool otherwise) {
  std::string text = request.option(name);
  if (text.empty()) return otherwise;
  if (text == "on" || text == "true" || text == "yes") return true;
  if (text == "off" || text == "false" || text == "no") return false;
  return Error(ErrorKind::invalidArgument, fmt::format("option {}={}", name, inQuotes(text))).withHint("use on or off");
}

Result<Preallocation> parsePreallocation(std::string_view text) {
  constexpr std::string_view kNames[] = {"off", "metadata", "falloc", "full"};
  for (std::size_t i = 0; i < std::size(kNames); ++i) {
    if (text == kNames[i]) return static_cast<Preallocation>(i);
  }
  return Error(ErrorKind::invalidArgument, "unknown preallocation " + inQuotes(text))
      .withHint("use off, metadata, falloc or full");
}

Status createImage(const FormatDriver& driver, CreateRequest request) {
  std::string what = fmt::format("create {} image {}", driver.name, inQuotes(request.path));
  if (!driver.create) return Error(ErrorKind::unsupported, what + ": this format is only read");
  for (const auto& [name, value] : request.options) {
    auto known = std::find_if(driver.options.begin(), driver.options.end(),
                              [&wanted = name](auto& o) { return o.name == wanted; });
    if (known == driver.options.end()) {
      std::vector<std::string> names;
      for (const FormatOption& option : driver.options) names.emplace_back(option.name);
      return Error(ErrorKind::invalidArgument, fmt::format("{}: unknown option {}", what, inQuotes(name)))
          .withHint(names.empty() ? "this format has none" : "it has " + join(names, ", "));
    }
  }
  if (!request.backingName.empty() && !driver.backing)
    return Error(ErrorKind::unsupported, what + ": this format has no backing images").withHint("use qcow2");
  constexpr std::uint64_t kMaxBytes = (std::uint64_t{1} << 63) - 512;
  if (request.bytes > kMaxBytes) return Error(ErrorKind::invalidArgument, what + ": the size is too large");
  request.bytes = (request.bytes + 511) & ~std::uint64_t{511};
  if (!request.files) request.files = &hostFiles();
  auto preallocation = parsePreallocation(request.option("preallocation", "off"));
  if (!preallocation) return std::move(preallocation).error().context(what);
  if (request.options.count("preallocation") != 0) request.preallocation = *preallocation;
  Status made = driver.create(request);
  if (!made) return std::move(made).error().context(what);
  return {};
}

}  // namespace lodge::image
