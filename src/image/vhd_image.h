// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "image/format.h"
#include "image/mapped_check.h"
#include "image/mapped_image.h"
#include "image/vhd_layout.h"

namespace lodge::image::vhd {

/// Names of the parent that a differencing image's header gives, best first, as paths of this host.
Result<std::vector<std::string>> parentNames(BlockFile& file, const Header& header);
/// Sets the parent's name and locators; the locators' text goes to `text`, which is to stand at `textOffset`.
Status setParent(Header& header, const std::string& name, std::uint64_t textOffset, std::vector<std::byte>& text);
constexpr std::uint64_t kParentTextBytes = 16384;  ///< kept for setParent()'s text

/// An open VHD image whose footer and header were found good.
class VhdImage final : public MappedImage, private BlockTable {
 public:
  VhdImage(const OpenContext& context, const Footer& footer, const Header& header, std::unique_ptr<Image> parent,
           std::string parentName);
  ~VhdImage() override { close(); }

  const Uuid& uuid() const { return footer_.uuid; }
  std::uint32_t timestamp() const { return footer_.timestamp; }

  Result<ImageInfo> info() override;
  Result<CheckResult> check(Repair repair) override;
  Status resize(std::uint64_t newBytes, Preallocation preallocation) override;
  Status changeBacking(const std::string& name, const std::string& format) override;
  Status makeEmpty() override;

 protected:
  int map(std::uint64_t offset, std::uint64_t length, Mapping& mapping) override;
  int reserve(std::uint64_t offset, std::uint64_t& length, std::uint64_t& host) override;
  int publish(std::uint64_t offset, std::uint64_t length, std::uint64_t host) override;
  int beginWriting() override;
  void addState(std::vector<TableCache::Copy>& copies) override;
  bool hasBacking() const override { return footer_.type == kDifferencing; }

 private:
  std::uint64_t blocks() const override { return header_.entries; }
  std::uint64_t unitBytes() const override { return kSector; }
  std::uint32_t blockUnits() const override {
    return static_cast<std::uint32_t>((bitmapBytes_ + shape_.blockBytes) / kSector);
  }
  std::uint64_t firstUnit() const override { return (sizeof(Footer) + sizeof(Header)) / kSector; }
  std::uint64_t endUnit() const override { return (end_ + kSector - 1) / kSector; }
  int unitOf(std::uint64_t block, std::uint32_t& unit) override;
  int setUnit(std::uint64_t block, std::uint32_t unit) override;
  std::vector<Used> tables() override;

  bool fixed() const { return footer_.type == kFixed; }
  void setShapeOf(std::uint64_t bytes);
  int entry(std::uint64_t block, std::byte*& at, std::uint64_t& piece);
  int resizeFixed(std::uint64_t newBytes);
  int resizeTable(std::uint64_t newBytes);
  int writeFooters();

  Footer footer_;
  Header header_;
  std::uint64_t bitmapBytes_ = 0;
  std::string parentName_;
};

}  // namespace lodge::image::vhd
