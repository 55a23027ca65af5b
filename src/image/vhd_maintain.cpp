// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cerrno>
#include <cstring>

#include "base/text.h"
#include "base/units.h"
#include "image/vhd_image.h"

namespace lodge::image::vhd {

Result<ImageInfo> VhdImage::info() {
  ImageInfo info;
  info.format = "vhd";
  info.virtualBytes = virtualBytes_;
  info.allocatedBytes = file_->allocatedBytes();
  info.clusterBytes = fixed() ? 0 : shape_.blockBytes;
  info.backingName = parentName_;
  if (footer_.type == kDifferencing) info.backingFormat = "vhd";
  static constexpr std::string_view kTypes[] = {"", "", "fixed", "dynamic", "differencing"};
  info.details = {
      {"subformat", std::string(kTypes[footer_.type])},
      {"uuid", formatUuid(footer_.uuid, false)},
      {"geometry", fmt::format("{}/{}/{}", std::uint16_t{footer_.cylinders}, footer_.heads, footer_.sectorsPerTrack)},
      {"creator", std::string(footer_.creator.data(), ::strnlen(footer_.creator.data(), 4))},
      {"whole MiB (Azure)", virtualBytes_ % 1_MiB == 0}};
  return info;
}

std::vector<BlockTable::Used> VhdImage::tables() {
  std::uint64_t first = header_.tableOffset / kSector;
  std::vector<Used> used = {
      {first, (header_.tableOffset + header_.entries * std::uint64_t{4} + kSector - 1) / kSector}};
  for (const Locator& locator : header_.locators) {
    std::uint64_t at = locator.offset / kSector, end = (locator.offset + locator.length + kSector - 1) / kSector;
    if (locator.platform != 0 && end <= endUnit()) used.push_back({at, end});
  }
  return used;
}

int VhdImage::writeFooters() {
  std::uint64_t end = fixed() ? std::uint64_t{footer_.currentBytes} : end_;
  int error = file_->write(end, &footer_, sizeof footer_);
  if (error == 0) error = file_->truncate(end + sizeof footer_);
  if (error == 0 && !fixed()) error = file_->write(0, &footer_, sizeof footer_);
  return error == 0 ? file_->flush() : error;
}

Result<CheckResult> VhdImage::check(Repair repair) {
  CheckResult result;
  auto failed = [&](int error) { return Error::fromErrno(error, "check " + inQuotes(file_->name())); };
  if (fixed()) {
    result.imageEnd = virtualBytes_ + sizeof(Footer);
    return result;
  }
  if (int error = checkBlocks(*this, *file_, repair, result, progress()); error != 0) return failed(error);
  std::uint64_t end = alignUp(result.imageEnd, kSector);
  Footer front{}, last{};
  std::uint64_t bytes = file_->size();
  int error = file_->read(0, &front, sizeof front);
  if (error == 0) error = file_->read(bytes - sizeof last, &last, sizeof last);
  if (error != 0) return failed(error);
  bool whole = isGood(front) && isGood(last);
  if (!whole) result.note("one of the two copies of the footer is damaged");
  result.imageEnd = end + sizeof(Footer);
  if (repair == Repair::none) {
    result.leaks += whole ? 0 : 1;
    return result;
  }
  result.leaksFixed += whole ? 0 : 1;
  end_ = end;
  error = file_->flush();
  if (error == 0) error = flush();
  if (error == 0) error = writeFooters();
  if (error != 0) return failed(error);
  return result;
}

int VhdImage::resizeFixed(std::uint64_t newBytes) {
  std::uint64_t old = footer_.currentBytes;
  setSize(footer_, newBytes);
  int error = newBytes > old ? file_->write(newBytes, &footer_, sizeof footer_) : 0;
  if (error == 0) error = file_->flush();
  // Only with the new footer in place may the old one become zeroes of the disk.
  if (error == 0 && newBytes > old) {
    error = file_->writeZeroes(old, std::min<std::uint64_t>(sizeof footer_, newBytes - old), true);
  }
  return error == 0 ? writeFooters() : error;
}

int VhdImage::resizeTable(std::uint64_t newBytes) {
  std::uint64_t block = shape_.blockBytes, entries = (newBytes + block - 1) / block, old = header_.entries;
  if (newBytes < virtualBytes_) {
    for (std::uint64_t b = entries; b < old; ++b) {
      if (int error = setUnit(b, kUnused); error != 0) return error;
    }
    std::uint64_t rest = std::min(virtualBytes_, entries * block) - newBytes;
    if (int error = rest == 0 ? 0 : writeZeroes(newBytes, rest, true); error != 0) return error;
  }
  if (int error = flush(); error != 0) return error;
  if (entries > old) {
    // The larger table goes to the end; the header leads to it when it is there.
    std::vector<std::byte> table(alignUp(entries * 4, kSector), std::byte{0xff});
    if (int error = file_->read(header_.tableOffset, table.data(), old * 4); error != 0) return error;
    std::uint64_t at = alignUp(end_, 4096);
    if (int error = file_->write(at, table.data(), table.size()); error != 0) return error;
    end_ = at + table.size();
    if (int error = file_->write(end_, &footer_, sizeof footer_); error != 0) return error;
    if (int error = file_->flush(); error != 0) return error;
    header_.tableOffset = at;
    header_.entries = static_cast<std::uint32_t>(entries);
    header_.checksum = checksumOf(header_);
    int error = file_->write(footer_.dataOffset, &header_, sizeof header_);
    if (error == 0) error = file_->flush();
    if (error != 0) return error;
  }
  setSize(footer_, newBytes);
  return writeFooters();
}

Status VhdImage::resize(std::uint64_t newBytes, Preallocation) {
  if (newBytes == 0 || newBytes > kMaxBytes || newBytes % kSector != 0) {
    return Error(ErrorKind::invalidArgument, fmt::format("resize {} to {} bytes", inQuotes(file_->name()), newBytes));
  }
  // From now on the size is exact, whatever made the image.
  std::memcpy(footer_.creator.data(), "win ", 4);
  if (int error = fixed() ? resizeFixed(newBytes) : resizeTable(newBytes); error != 0) {
    return Error::fromErrno(error, "resize " + inQuotes(file_->name()));
  }
  std::uint64_t end = end_, old = virtualBytes_;
  setShapeOf(newBytes);
  end_ = fixed() ? file_->size() : end;
  // What a longer parent has there must not show.
  if (backing() && newBytes > old && backing()->size() > old) {
    int error = writeZeroes(old, std::min(newBytes, backing()->size()) - old, true);
    if (error == 0) error = flush();
    if (error != 0) return Error::fromErrno(error, "resize " + inQuotes(file_->name()));
  }
  return {};
}

Status VhdImage::changeBacking(const std::string& name, const std::string&) {
  if (footer_.type != kDifferencing || name.empty()) {
    return Error(ErrorKind::unsupported,
                 fmt::format("give {} another parent: only differencing VHDs have one", inQuotes(file_->name())));
  }
  auto failed = [&](int error) { return Error::fromErrno(error, "change the parent of " + inQuotes(file_->name())); };
  if (int error = flush(); error != 0) return failed(error);
  OpenOptions options;
  options.paths = PathPolicy::anywhere;
  std::string path = name.starts_with("/") ? name : folderOf(file_->name()) + "/" + name;
  auto parent = openImage(path, "vhd", options);
  Header header = header_;
  if (parent) {
    if (auto* image = dynamic_cast<VhdImage*>(parent->get())) {
      header.parentUuid = image->uuid();
      header.parentTimestamp = image->timestamp();
    }
  }
  // The new text goes to the end of the file, so that the old one is whole until the header leads elsewhere.
  std::vector<std::byte> text;
  std::uint64_t at = alignUp(end_, 4096);
  if (Status set = setParent(header, name, at, text); !set) return set;
  end_ = at + text.size();
  int error = file_->write(at, text.data(), text.size());
  if (error == 0) error = writeFooters();
  if (error == 0) error = file_->write(footer_.dataOffset, &header, sizeof header);
  if (error == 0) error = file_->flush();
  if (error != 0) return failed(error);
  header_ = header;
  parentName_ = name;
  return {};
}

Status VhdImage::makeEmpty() {
  if (fixed()) return Error(ErrorKind::unsupported, "empty a fixed VHD");
  int error = 0;
  for (std::uint64_t block = 0; block < header_.entries && error == 0; ++block) error = setUnit(block, kUnused);
  if (error == 0) error = flush();
  if (error != 0) return Error::fromErrno(error, "empty " + inQuotes(file_->name()));
  auto cleaned = check(Repair::leaks);
  if (!cleaned) return std::move(cleaned).error();
  return {};
}

}  // namespace lodge::image::vhd
