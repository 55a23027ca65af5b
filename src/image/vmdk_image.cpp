// SPDX-License-Identifier: Apache-2.0
#include "image/vmdk_image.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <random>

#include "base/text.h"
#include "image/io_vector.h"

namespace lodge::image::vmdk {

VmdkImage::VmdkImage(Descriptor descriptor, Place place, std::vector<Part> parts, std::unique_ptr<Image> parent,
                     std::string parentName, bool readOnly)
    : descriptor_(std::move(descriptor)),
      place_(std::move(place)),
      parts_(std::move(parts)),
      parent_(std::move(parent)),
      parentName_(std::move(parentName)),
      readOnly_(readOnly) {
  for (Part& part : parts_) {
    part.start = bytes_;
    bytes_ += part.bytes;
    if (!part.sparse) continue;
    part.sparse->setIsChild(descriptor_.hasParent());
    part.sparse->setParent({parent_.get(), part.start});
  }
}

VmdkImage::Part& VmdkImage::partAt(std::uint64_t offset) {
  if (parts_.size() == 1) return parts_[0];
  auto after = std::upper_bound(parts_.begin(), parts_.end(), offset,
                                [](std::uint64_t at, const Part& part) { return at < part.start; });
  return *std::prev(after);
}

template <class Each>
int VmdkImage::forParts(std::uint64_t offset, std::uint64_t length, Each each) {
  if (offset > bytes_ || length > bytes_ - offset) return EINVAL;
  while (length != 0) {
    Part& part = partAt(offset);
    std::uint64_t within = offset - part.start, n = std::min(length, part.bytes - within);
    if (int error = each(part, within, n); error != 0) return error;
    offset += n;
    length -= n;
  }
  return 0;
}

int VmdkImage::read(std::uint64_t offset, std::span<const iovec> to) {
  if (parts_.size() == 1) return parts_[0].image->read(offset, to);
  IoCursor cursor(to);
  return forParts(offset, bytesIn(to),
                  [&](Part& part, std::uint64_t at, std::uint64_t n) { return part.image->read(at, cursor.take(n)); });
}

int VmdkImage::write(std::uint64_t offset, std::span<const iovec> from) {
  if (readOnly_) return EROFS;
  if (int error = changeCid(); error != 0) return error;
  IoCursor cursor(from);
  return forParts(offset, bytesIn(from),
                  [&](Part& part, std::uint64_t at, std::uint64_t n) { return part.image->write(at, cursor.take(n)); });
}

int VmdkImage::flush() {
  for (Part& part : parts_) {
    if (int error = part.image->flush(); error != 0) return error;
  }
  return 0;
}

int VmdkImage::discard(std::uint64_t offset, std::uint64_t length) {
  if (readOnly_) return EROFS;
  if (int error = changeCid(); error != 0) return error;
  return forParts(offset, length,
                  [](Part& part, std::uint64_t at, std::uint64_t n) { return part.image->discard(at, n); });
}

int VmdkImage::writeZeroes(std::uint64_t offset, std::uint64_t length, bool mayUnmap) {
  if (readOnly_) return EROFS;
  if (int error = changeCid(); error != 0) return error;
  return forParts(offset, length, [&](Part& part, std::uint64_t at, std::uint64_t n) {
    return part.image->writeZeroes(at, n, mayUnmap);
  });
}

int VmdkImage::blockStatus(std::uint64_t offset, std::uint64_t length, BlockStatus& status) {
  if (offset >= bytes_ || length == 0) return EINVAL;
  Part& part = partAt(offset);
  std::uint64_t within = offset - part.start;
  return part.image->blockStatus(within, std::min(length, part.bytes - within), status);
}

int VmdkImage::tryRead(std::uint64_t offset, std::span<const iovec> to) {
  if (offset >= bytes_) return EAGAIN;
  Part& part = partAt(offset);
  std::uint64_t within = offset - part.start;
  if (bytesIn(to) > part.bytes - within) return EAGAIN;
  return part.image->tryRead(within, to);
}

int VmdkImage::tryWrite(std::uint64_t offset, std::span<const iovec> from) {
  if (readOnly_ || !cidChanged_ || offset >= bytes_) return EAGAIN;
  Part& part = partAt(offset);
  std::uint64_t within = offset - part.start;
  if (bytesIn(from) > part.bytes - within) return EAGAIN;
  return part.image->tryWrite(within, from);
}

int VmdkImage::changeCid() {
  if (cidChanged_) return 0;
  std::lock_guard held(mutex_);
  if (cidChanged_) return 0;
  std::uint32_t id = 0;
  while (id == 0 || id >= 0xfffffffe || id == descriptor_.cid) id = std::random_device()();
  if (!place_.text.empty()) {
    std::string text = withIds(place_.text, id, descriptor_.parentCid, descriptor_.parentName);
    // Only digits change, so a torn write leaves a descriptor all the same.
    if (text.size() == place_.text.size()) {
      if (int error = writeDescriptor(text); error != 0) return error;
      descriptor_.cid = id;
    }
  }
  cidChanged_ = true;
  return 0;
}

int VmdkImage::writeDescriptor(const std::string& text) {
  if (place_.embedded && text.size() > place_.room) return ENOSPC;
  std::string padded = text;
  if (place_.embedded) padded.resize(place_.room, '\0');
  int error = place_.file->write(place_.offset, padded.data(), padded.size());
  if (error == 0 && !place_.embedded) error = place_.file->truncate(padded.size());
  if (error == 0) place_.text = text;
  return error;
}

bool VmdkImage::streamOnly() const {
  return parts_.size() == 1 && parts_[0].sparse && parts_[0].sparse->compressed() && !readOnly_;
}

Result<std::unique_ptr<StreamWriter>> VmdkImage::streamWriter() {
  if (!streamOnly()) {
    return Error(ErrorKind::unsupported, "compressed grains in a VMDK of this kind")
        .withHint("use -o subformat=streamOptimized");
  }
  if (!parts_[0].sparse->empty()) {
    return Error(ErrorKind::unsupported, "a streamOptimized VMDK is written once, from its beginning to its end");
  }
  return makeStreamWriter(parts_[0].file, parts_[0].sparse->shape());
}

Result<ImageInfo> VmdkImage::info() {
  ImageInfo info;
  info.format = "vmdk";
  info.virtualBytes = bytes_;
  info.backingName = parentName_;
  if (descriptor_.hasParent()) info.backingFormat = "vmdk";
  if (!place_.embedded && place_.file) info.allocatedBytes = place_.file->allocatedBytes();
  InfoRows extents;
  for (Part& part : parts_) {
    if (part.file) info.allocatedBytes += part.file->allocatedBytes();
    if (part.sparse) info.clusterBytes = std::max(info.clusterBytes, part.sparse->shape().grain);
    if (part.file && part.file != place_.file) info.files.push_back(part.file->name());
    std::vector<std::pair<std::string, InfoField>> row = {{"virtual size", part.bytes}, {"filename", part.name}};
    if (part.sparse) row.emplace_back("cluster size", part.sparse->shape().grain);
    row.emplace_back("format", std::string(part.sparse ? "SPARSE" : part.file ? "FLAT" : "ZERO"));
    if (part.sparse && part.sparse->compressed()) row.emplace_back("compressed", true);
    extents.push_back(std::move(row));
  }
  info.details = {{"create type", descriptor_.createType}, {"cid", fmt::format("{:08x}", descriptor_.cid)}};
  if (descriptor_.hasParent()) info.details.emplace_back("parent cid", fmt::format("{:08x}", descriptor_.parentCid));
  for (const char* key : {"ddb.adapterType", "ddb.virtualHWVersion"}) {
    auto value = descriptor_.values.find(key);
    if (value != descriptor_.values.end()) info.details.emplace_back(key + 4, value->second);
  }
  info.details.emplace_back("extents", std::move(extents));
  return info;
}

Result<CheckResult> VmdkImage::check(Repair repair) {
  CheckResult sum;
  for (Part& part : parts_) {
    part.image->onProgress(progress());
    auto one = part.image->check(repair);
    if (!one) return one;
    sum.corruptions += one->corruptions;
    sum.leaks += one->leaks;
    sum.corruptionsFixed += one->corruptionsFixed;
    sum.leaksFixed += one->leaksFixed;
    sum.checkErrors += one->checkErrors;
    sum.totalClusters += one->totalClusters;
    sum.allocatedClusters += one->allocatedClusters;
    sum.compressedClusters += one->compressedClusters;
    sum.fragmentedClusters += one->fragmentedClusters;
    sum.imageEnd = std::max(sum.imageEnd, one->imageEnd);
    for (std::string& text : one->messages) sum.note(parts_.size() == 1 ? text : part.name + ": " + text);
  }
  return sum;
}

Status VmdkImage::resize(std::uint64_t newBytes, Preallocation preallocation) {
  Part& last = parts_.back();
  std::string what = "resize " + inQuotes(place_.file ? place_.file->name() : last.name);
  bool grows = newBytes >= bytes_;
  if (streamOnly() || !last.file || last.access != Access::readWrite || (!grows && newBytes <= last.start)) {
    return Error(ErrorKind::unsupported, what + ": not this kind of VMDK").withHint("convert it");
  }
  std::uint64_t old = bytes_;
  last.image->onProgress(progress());
  if (Status resized = last.image->resize(newBytes - last.start, preallocation); !resized) return resized;
  last.bytes = newBytes - last.start;
  bytes_ = newBytes;
  if (!place_.text.empty()) {
    std::string text = withExtentSize(place_.text, parts_.size() - 1, last.bytes / kSector);
    int error = last.image->flush();
    if (error == 0) error = writeDescriptor(text);
    if (error == 0) error = place_.file->flush();
    if (error != 0) return Error::fromErrno(error, what);
  }
  if (parent_ && newBytes > old && parent_->size() > old) {
    // What a longer parent has there must not show.
    int error = writeZeroes(old, std::min(newBytes, parent_->size()) - old, true);
    if (error == 0) error = flush();
    if (error != 0) return Error::fromErrno(error, what);
  }
  return {};
}

Status VmdkImage::changeBacking(const std::string& name, const std::string&) {
  std::string what = "change the parent of " + inQuotes(place_.file ? place_.file->name() : "");
  if (!descriptor_.hasParent() || name.empty() || place_.text.empty()) {
    return Error(ErrorKind::unsupported, what + ": only delta VMDKs have one");
  }
  if (name.find_first_of("\"\n\r") != std::string::npos) {
    return Error(ErrorKind::invalidArgument, what + ": a descriptor cannot hold the name " + inQuotes(name));
  }
  OpenOptions options;
  options.paths = PathPolicy::anywhere;
  std::string folder = folderOf(place_.file->name());
  std::string path = name.starts_with("/") || folder == "." ? name : folder + "/" + name;
  auto parent = openImage(path, "vmdk", options);
  if (!parent) return std::move(parent).error().context("parent");
  std::uint32_t cid = static_cast<VmdkImage&>(**parent).cid();
  int error = writeDescriptor(withIds(place_.text, descriptor_.cid, cid, name));
  if (error == 0) error = place_.file->flush();
  if (error != 0) return Error::fromErrno(error, what);
  descriptor_.parentCid = cid;
  descriptor_.parentName = parentName_ = name;
  return {};
}

Status VmdkImage::makeEmpty() {
  for (Part& part : parts_) {
    if (Status emptied = part.image->makeEmpty(); !emptied) return emptied;
  }
  return {};
}

}  // namespace lodge::image::vmdk
