// SPDX-License-Identifier: Apache-2.0
#include "base/text.h"

#include <algorithm>
#include <array>
#include <charconv>

namespace lodge {

std::string inQuotes(std::string_view text) {
  std::string out = "'";
  for (char c : text) {
    auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte > 0x7e) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  return out + "'";
}

std::vector<std::string> splitFields(std::string_view text, char separator) {
  std::vector<std::string> fields(1);
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != separator) {
      fields.back() += text[i];
    } else if (i + 1 < text.size() && text[i + 1] == separator) {
      fields.back() += separator;
      ++i;
    } else {
      fields.emplace_back();
    }
  }
  return fields;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    std::size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

std::string join(const std::vector<std::string>& parts, std::string_view separator) {
  std::string out;
  for (const std::string& part : parts) {
    if (&part != &parts.front()) out += separator;
    out += part;
  }
  return out;
}

std::optional<std::uint64_t> parseNumber(std::string_view text, std::uint64_t max) {
  int base = 10;
  if (text.size() > 2 && text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) {
    base = 16;
    text.remove_prefix(2);
  }
  std::uint64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size() || value > max) return std::nullopt;
  return value;
}

namespace {

constexpr std::string_view kUnits = "KMGT";

/// The power of two that a unit stands for ("M", "mib"), or nothing.
std::optional<unsigned> unitShift(std::string_view unit) {
  if (unit.empty()) return std::nullopt;
  char letter = unit[0] >= 'a' && unit[0] <= 'z' ? static_cast<char>(unit[0] - 'a' + 'A') : unit[0];
  std::size_t index = kUnits.find(letter);
  std::string_view rest = unit.substr(1);
  if (index == std::string_view::npos || !(rest.empty() || rest == "iB" || rest == "ib")) return std::nullopt;
  return static_cast<unsigned>(10 * (index + 1));
}

/// "1.5" scaled by 2^shift, rounded down. Nothing if it is not a number, has over nine decimals, or does not fit.
std::optional<std::uint64_t> scaled(std::string_view number, unsigned shift) {
  std::size_t point = number.find('.');
  std::string_view wholeText = number.substr(0, point);
  std::string_view fractionText = point == std::string_view::npos ? "0" : number.substr(point + 1);
  if (fractionText.size() > 9 || wholeText.find_first_of("xX") != std::string_view::npos) return std::nullopt;
  auto whole = parseNumber(wholeText, UINT64_MAX >> shift);
  auto fraction = fractionText.find_first_of("xX") == std::string_view::npos ? parseNumber(fractionText) : std::nullopt;
  if (!whole || !fraction) return std::nullopt;
  unsigned __int128 divisor = 1;
  for (std::size_t i = 0; i < fractionText.size(); ++i) divisor *= 10;
  auto part = static_cast<std::uint64_t>((static_cast<unsigned __int128>(*fraction) << shift) / divisor);
  std::uint64_t base = *whole << shift;
  if (base + part < base) return std::nullopt;
  return base + part;
}

}  // namespace

Result<std::uint64_t> parseSize(std::string_view text) {
  std::size_t unitAt = text.find_first_not_of("0123456789.");
  std::string_view number = text.substr(0, unitAt);
  std::string_view unit = unitAt == std::string_view::npos ? std::string_view() : text.substr(unitAt);
  if (unit.empty() && !number.empty()) {
    return Error(ErrorKind::invalidArgument, inQuotes(text) + " has no unit")
        .withHint(fmt::format("write {0}M for mebibytes or {0}G for gibibytes", number));
  }
  auto shift = unitShift(unit);
  auto bytes = shift ? scaled(number, *shift) : std::nullopt;
  if (!bytes) {
    return Error(ErrorKind::invalidArgument, inQuotes(text) + " is not a size")
        .withHint("write a number and a unit: 512M, 1G, 1.5G");
  }
  return *bytes;
}

std::string formatSize(std::uint64_t bytes) {
  static constexpr std::array<const char*, 7> kNames = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  std::size_t unit = 0;
  auto value = static_cast<double>(bytes);
  while (value >= 1024 && unit + 1 < kNames.size()) {
    value /= 1024;
    ++unit;
  }
  if (value == static_cast<double>(static_cast<std::uint64_t>(value)))
    return fmt::format("{:.0f} {}", value, kNames[unit]);
  return fmt::format("{:.{}f} {}", value, value < 10 ? 2 : value < 100 ? 1 : 0, kNames[unit]);
}

std::string formatDuration(std::uint64_t seconds) {
  if (seconds < 60) return fmt::format("{} s", seconds);
  if (seconds < 3600) return fmt::format("{} min {} s", seconds / 60, seconds % 60);
  if (seconds < 86400) return fmt::format("{} h {} min", seconds / 3600, seconds % 3600 / 60);
  return fmt::format("{} d {} h", seconds / 86400, seconds % 86400 / 3600);
}

namespace {
std::size_t editDistance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      std::size_t substitute = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
    }
  }
  return row[b.size()];
}
}  // namespace

std::string_view closest(std::string_view text, const std::vector<std::string_view>& candidates) {
  std::string_view best;
  std::size_t bestDistance = std::max<std::size_t>(1, std::min<std::size_t>(3, text.size() / 3)) + 1;
  if (text.size() > 64) return best;
  for (std::string_view candidate : candidates) {
    std::size_t distance = editDistance(text, candidate);
    if (distance < bestDistance) {
      bestDistance = distance;
      best = candidate;
    }
  }
  return best;
}

}  // namespace lodge
