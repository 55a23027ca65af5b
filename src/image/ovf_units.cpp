// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <map>

#include "base/text.h"
#include "image/ovf.h"

namespace lodge::image::ovf {

namespace {

std::string squeezed(std::string_view text) {
  std::string result;
  for (char c : text) {
    if (!std::isspace(static_cast<unsigned char>(c))) {
      result += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
  }
  return result;
}

/// The power of two of "byte*2^20", "megabytes", "mb", ...; -1 if unknown.
int shiftOf(const std::string& unit) {
  static const std::map<std::string, int> kNames = {
      {"", 0},          {"byte", 0},       {"bytes", 0},  {"b", 0},       {"kb", 10}, {"kib", 10},
      {"kilobyte", 10}, {"kilobytes", 10}, {"kbyte", 10}, {"kbytes", 10}, {"mb", 20}, {"mib", 20},
      {"megabyte", 20}, {"megabytes", 20}, {"mbyte", 20}, {"mbytes", 20}, {"gb", 30}, {"gib", 30},
      {"gigabyte", 30}, {"gigabytes", 30}, {"gbyte", 30}, {"gbytes", 30}, {"tb", 40}, {"tib", 40},
      {"terabyte", 40}, {"terabytes", 40}};
  if (auto found = kNames.find(unit); found != kNames.end()) return found->second;
  for (std::string_view prefix : {"byte*2^", "bytes*2^"}) {
    if (!unit.starts_with(prefix)) continue;
    auto power = parseNumber(unit.substr(prefix.size()), 50);
    return power ? static_cast<int>(*power) : -1;
  }
  return -1;
}

bool isHex(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isxdigit(c) != 0; });
}

}  // namespace

std::string_view toString(Bus bus) {
  static constexpr std::string_view kNames[] = {"ide", "scsi", "sata", "nvme", "virtio", "other"};
  return kNames[static_cast<std::size_t>(bus)];
}

Result<std::uint64_t> bytesIn(std::string_view number, std::string_view unit) {
  auto value = parseNumber(squeezed(number));
  int shift = shiftOf(squeezed(unit));
  if (!value) return Error(ErrorKind::corrupt, fmt::format("{} is not a number of bytes", inQuotes(number)));
  if (shift < 0) return Error(ErrorKind::corrupt, fmt::format("{} is not a unit of bytes", inQuotes(unit)));
  if (*value > (std::uint64_t{1} << 60) >> shift) {
    return Error(ErrorKind::corrupt, fmt::format("{} {} are too many bytes", *value, inQuotes(unit)));
  }
  return *value << shift;
}

bool isSafeName(std::string_view name) {
  if (name.empty() || name.size() > 1024 || name.front() == '/') return false;
  for (unsigned char c : name) {
    if (c < 0x20 || c == 0x7f || c == '\\' || c == ':') return false;
  }
  for (std::string_view part : split(name, '/')) {
    if (part.empty() || part == "." || part == "..") return false;
  }
  return true;
}

Result<std::vector<Digest>> parseManifest(std::string_view text) {
  static const std::map<std::string, std::size_t> kDigits = {
      {"sha1", 40}, {"sha256", 64}, {"sha384", 96}, {"sha512", 128}};
  std::vector<Digest> digests;
  std::size_t number = 0;
  for (std::string_view raw : split(text, '\n')) {
    ++number;
    std::string_view line = raw.substr(0, raw.find_last_not_of(" \t\r") + 1);
    if (line.empty()) continue;
    auto bad = [&](const std::string& what) {
      return Error(ErrorKind::corrupt, fmt::format("manifest line {}: {}", number, what));
    };
    // "SHA256(name)= hex": the name may have brackets of its own.
    std::size_t open = line.find('('), close = line.rfind(')'), equals = line.rfind('=');
    if (open == std::string_view::npos || close == std::string_view::npos || equals == std::string_view::npos ||
        close < open || equals < close) {
      return bad("not as SHA256(file)= digest");
    }
    Digest digest;
    digest.algorithm = squeezed(line.substr(0, open));
    digest.algorithm.erase(std::remove(digest.algorithm.begin(), digest.algorithm.end(), '-'), digest.algorithm.end());
    digest.file = std::string(line.substr(open + 1, close - open - 1));
    digest.hex = squeezed(line.substr(equals + 1));
    auto digits = kDigits.find(digest.algorithm);
    if (digits == kDigits.end()) {
      return Error(ErrorKind::unsupported,
                   fmt::format("manifest line {}: algorithm {}", number, inQuotes(line.substr(0, open))));
    }
    if (!isSafeName(digest.file)) return bad("the name " + inQuotes(digest.file) + " leads out of the package");
    if (digest.hex.size() != digits->second || !isHex(digest.hex)) return bad("not a digest of that algorithm");
    std::transform(digest.algorithm.begin(), digest.algorithm.end(), digest.algorithm.begin(),
                   [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    if (digests.size() >= 10000) return bad("too many lines");
    digests.push_back(std::move(digest));
  }
  return digests;
}

}  // namespace lodge::image::ovf
