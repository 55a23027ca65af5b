// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "image/format.h"
#include "image/mapped_check.h"
#include "image/mapped_image.h"
#include "image/vdi_layout.h"

namespace lodge::image::vdi {

/// An open VDI image whose header was found good.
class VdiImage final : public MappedImage, private BlockTable {
 public:
  VdiImage(const OpenContext& context, const Header& header, std::unique_ptr<Image> parent, std::string parentName);
  ~VdiImage() override { close(); }

  Result<ImageInfo> info() override;
  Result<CheckResult> check(Repair repair) override;
  Status resize(std::uint64_t newBytes, Preallocation preallocation) override;

 protected:
  int map(std::uint64_t offset, std::uint64_t length, Mapping& mapping) override;
  int reserve(std::uint64_t offset, std::uint64_t& length, std::uint64_t& host) override;
  int publish(std::uint64_t offset, std::uint64_t length, std::uint64_t host) override;
  void addState(std::vector<TableCache::Copy>& copies) override;
  bool hasBacking() const override { return child_; }

 private:
  std::uint64_t blocks() const override { return header_.blocks; }
  std::uint64_t unitBytes() const override { return shape_.blockBytes; }
  std::uint32_t blockUnits() const override { return 1; }
  std::uint64_t firstUnit() const override { return 0; }
  std::uint64_t endUnit() const override;
  int unitOf(std::uint64_t block, std::uint32_t& unit) override;
  int setUnit(std::uint64_t block, std::uint32_t unit) override;

  int entry(std::uint64_t block, std::byte*& at, std::uint64_t& piece);
  void setShapeOf(std::uint64_t bytes);
  int enlargeTable(std::uint64_t blocks);
  int moveBlocksBelow(std::uint32_t end);

  Header header_;
  bool child_;
  std::string parentName_;
};

/// The name of the image with that UUID beside `child`: what the user named (extra option "parent"), or a file in the
/// child's folder. Errors: notFound, with a hint.
Result<std::string> findParent(const OpenContext& child, const Uuid& parent);

}  // namespace lodge::image::vdi
