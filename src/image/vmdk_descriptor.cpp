// SPDX-License-Identifier: Apache-2.0
#include "image/vmdk_descriptor.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <algorithm>
#include <cctype>
#include <optional>

#include "base/text.h"
#include "base/units.h"
#include "image/uuid.h"

namespace lodge::image::vmdk {

namespace {

constexpr std::uint64_t kMaxSectors = std::uint64_t{1} << 54;  // bytes still fit

Error bad(std::size_t line, std::string_view text, const std::string& what) {
  return Error(ErrorKind::corrupt,
               fmt::format("descriptor line {} ({}): {}", line, inQuotes(text.substr(0, 80)), what));
}

std::string_view trim(std::string_view text) {
  auto isSpace = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
  while (!text.empty() && isSpace(text.front())) text.remove_prefix(1);
  while (!text.empty() && isSpace(text.back())) text.remove_suffix(1);
  return text;
}

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

std::string_view unquoted(std::string_view text) {
  if (text.size() >= 2 && text.front() == '"' && text.back() == '"') return text.substr(1, text.size() - 2);
  return text;
}

std::optional<Access> accessOf(std::string_view word) {
  if (word == "RW") return Access::readWrite;
  if (word == "RDONLY") return Access::readOnly;
  if (word == "NOACCESS") return Access::none;
  return std::nullopt;
}

/// The next word of `rest`, which moves on; a quoted one without its quotes.
std::string_view word(std::string_view& rest) {
  rest = trim(rest);
  if (rest.empty()) return {};
  std::size_t end = rest[0] == '"' ? rest.find('"', 1) : rest.find_first_of(" \t");
  if (end == std::string_view::npos) end = rest.size();
  bool quoted = rest[0] == '"';
  std::string_view found = quoted ? rest.substr(1, end - 1) : rest.substr(0, end);
  rest.remove_prefix(std::min(rest.size(), end + (quoted ? 1 : 0)));
  return found;
}

Result<ExtentLine> parseExtent(std::size_t number, std::string_view line, Access access) {
  std::string_view rest = line;
  word(rest);
  ExtentLine extent;
  extent.access = access;
  auto sectors = parseNumber(word(rest), kMaxSectors);
  if (!sectors) return bad(number, line, "a size in sectors is due");
  extent.sectors = *sectors;
  extent.type = std::string(word(rest));
  extent.file = std::string(word(rest));
  std::string_view offset = word(rest);
  if (!offset.empty()) {
    auto value = parseNumber(offset, kMaxSectors);
    if (!value) return bad(number, line, "an offset in sectors is due");
    extent.offset = *value;
  }
  if (extent.type.empty()) return bad(number, line, "a type is due");
  if (extent.type != "ZERO" && extent.file.empty()) return bad(number, line, "a file's name is due");
  return extent;
}

Status parseValue(std::size_t number, std::string_view line, Descriptor& descriptor) {
  std::size_t equals = line.find('=');
  if (equals == std::string_view::npos) return bad(number, line, "neither an extent nor a value");
  std::string key(trim(line.substr(0, equals)));
  std::string_view value = unquoted(trim(line.substr(equals + 1)));
  std::string name = lower(key);
  if (name == "cid" || name == "parentcid") {
    auto id = parseNumber("0x" + std::string(value), 0xffffffff);
    if (!id) return bad(number, line, "eight hexadecimal digits are due");
    (name == "cid" ? descriptor.cid : descriptor.parentCid) = static_cast<std::uint32_t>(*id);
  } else if (name == "createtype") {
    descriptor.createType = value;
  } else if (name == "parentfilenamehint") {
    descriptor.parentName = value;
  } else if (descriptor.values.size() < 1000) {
    descriptor.values[key] = value;
  }
  return {};
}

template <class Change>
std::string mapLines(std::string_view text, Change change) {
  std::string result;
  while (!text.empty()) {
    std::size_t end = text.find('\n');
    bool last = end == std::string_view::npos;
    std::string_view line = text.substr(0, end);
    result += change(line);
    if (!last) result += '\n';
    text.remove_prefix(last ? text.size() : end + 1);
  }
  return result;
}

}  // namespace

std::uint64_t Descriptor::sectors() const {
  std::uint64_t sum = 0;
  for (const ExtentLine& extent : extents) sum += extent.sectors;
  return sum;
}

bool looksLikeDescriptor(std::string_view head) {
  std::string_view text = trim(head.substr(0, 512));
  constexpr std::string_view kTitle = "# disk descriptorfile";
  return lower(text.substr(0, kTitle.size())) == kTitle;
}

Result<Descriptor> parseDescriptor(std::string_view text) {
  Descriptor descriptor;
  text = text.substr(0, text.find('\0'));
  if (text.size() > kMaxDescriptor) return Error(ErrorKind::corrupt, "a descriptor of more than 1 MiB");
  std::size_t number = 0;
  std::uint64_t total = 0;
  for (std::string_view raw : split(text, '\n')) {
    ++number;
    std::string_view line = trim(raw);
    if (line.empty() || line.front() == '#') continue;
    std::string_view rest = line;
    if (auto access = accessOf(word(rest))) {
      auto extent = parseExtent(number, line, *access);
      if (!extent) return std::move(extent).error();
      total += extent->sectors;
      if (descriptor.extents.size() >= kMaxExtents || total > kMaxSectors) {
        return Error(ErrorKind::corrupt, "its extents are too many or too large");
      }
      descriptor.extents.push_back(std::move(*extent));
      continue;
    }
    if (Status parsed = parseValue(number, line, descriptor); !parsed) return std::move(parsed).error();
  }
  return descriptor;
}

std::string withIds(std::string_view text, std::uint32_t cid, std::uint32_t parentCid, const std::string& parentName) {
  bool named = false;
  return mapLines(text, [&](std::string_view line) {
    std::string key = lower(trim(line.substr(0, line.find('='))));
    if (key == "cid") return fmt::format("CID={:08x}", cid);
    if (key == "parentcid") {
      std::string value = fmt::format("parentCID={:08x}", parentCid);
      if (text.find("parentFileNameHint") != std::string_view::npos || parentName.empty()) return value;
      return value + "\nparentFileNameHint=\"" + parentName + "\"";
    }
    if (key == "parentfilenamehint" && !std::exchange(named, true)) return "parentFileNameHint=\"" + parentName + "\"";
    return std::string(line);
  });
}

std::string withExtentSize(std::string_view text, std::size_t extent, std::uint64_t sectors) {
  std::size_t seen = 0;
  return mapLines(text, [&](std::string_view line) {
    std::string_view rest = line;
    std::string_view access = word(rest);
    if (!accessOf(access) || seen++ != extent) return std::string(line);
    word(rest);
    return fmt::format("{} {} {}", access, sectors, trim(rest));
  });
}

DiskGeometry geometryFor(std::string_view adapter, std::uint64_t diskSectors) {
  if (adapter == "ide") {
    return {std::min<std::uint64_t>(diskSectors / (16 * 63), 16383), 16, 63};
  }
  if (diskSectors < 1_GiB / 512) return {diskSectors / (64 * 32), 64, 32};
  if (diskSectors < 2_GiB / 512) return {diskSectors / (128 * 32), 128, 32};
  return {std::min<std::uint64_t>(diskSectors / (255 * 63), 65535), 255, 63};
}

std::string makeDescriptor(const DescriptorRequest& request) {
  std::uint64_t sectors = 0;
  for (const ExtentLine& extent : request.extents) sectors += extent.sectors;
  DiskGeometry geometry = geometryFor(request.adapter, sectors);
  std::string text = "# Disk DescriptorFile\nversion=1\n";
  text += fmt::format("CID={:08x}\nparentCID={:08x}\ncreateType=\"{}\"\n", request.cid, request.parentCid,
                      request.createType);
  if (!request.parentName.empty()) text += fmt::format("parentFileNameHint=\"{}\"\n", request.parentName);
  text += "\n# Extent description\n";
  for (const ExtentLine& extent : request.extents) {
    bool flat = extent.type == "FLAT" || extent.type == "VMFS";
    text += fmt::format("{} {} {} \"{}\"", extent.access == Access::readOnly ? "RDONLY" : "RW", extent.sectors,
                        extent.type, extent.file);
    text += flat ? fmt::format(" {}\n", extent.offset) : "\n";
  }
  Uuid content = randomUuid(false);
  std::string longId = formatUuid(content, false);
  longId.erase(std::remove(longId.begin(), longId.end(), '-'), longId.end());
  text += "\n# The Disk Data Base\n#DDB\n\n";
  text += fmt::format("ddb.adapterType = \"{}\"\n", request.adapter);
  text += fmt::format("ddb.geometry.cylinders = \"{}\"\n", std::max<std::uint64_t>(geometry.cylinders, 1));
  text += fmt::format("ddb.geometry.heads = \"{}\"\nddb.geometry.sectors = \"{}\"\n", geometry.heads, geometry.sectors);
  // Its last eight digits are the CID.
  text += fmt::format("ddb.longContentID = \"{}{:08x}\"\n", longId.substr(0, 24), request.cid);
  text += fmt::format("ddb.virtualHWVersion = \"{}\"\n", request.hardwareVersion);
  return text;
}

}  // namespace lodge::image::vmdk
