// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "image/format.h"
#include "image/mapped_check.h"
#include "image/mapped_image.h"
#include "image/vhdx_layout.h"
#include "image/vhdx_log.h"

namespace lodge::image::vhdx {

/// What the structures before the blocks say, found good.
struct Contents {
  Header header{};
  unsigned current = 0;  ///< which of the two headers that is
  std::uint64_t batOffset = 0, batBytes = 0, metadataOffset = 0, metadataBytes = 0;
  std::uint64_t blockBytes = 0, diskBytes = 0;
  std::uint32_t sectorBytes = 512, physicalSectorBytes = 512, flags = 0;
  Uuid diskId{};
  std::uint64_t sizeItem = 0;      ///< where the disk's size stands in the file
  std::uint64_t locatorEntry = 0;  ///< where the metadata table's entry of the parent locator stands
  std::vector<std::byte> locator{};

  bool hasParent() const { return (flags & kHasParent) != 0; }
  std::uint64_t chunkRatio() const { return kSectorsPerBitmap * sectorBytes / blockBytes; }
  std::uint64_t blocks() const { return (diskBytes + blockBytes - 1) / blockBytes; }
  /// Entries of the block allocation table (2.5).
  std::uint64_t entries(std::uint64_t ofBlocks) const;
};

/// The current header. Errors: corrupt, unsupported.
Result<Header> readHeader(BlockFile& file, unsigned& current);
/// Region tables and metadata, after the log's replay. Errors: corrupt, unsupported (naming what).
Status readContents(BlockFile& file, Contents& contents);
/// Writes `header` as the newer one of the two, then over the older; sets checksum and sequence. 0 or errno.
int writeHeader(BlockFile& file, Header& header, unsigned& current);

/// Both region tables' content.
std::vector<std::byte> makeRegions(const Contents& contents);

/// Where a child's parent is: names to try, best first, and the parent's id (text in braces).
struct Parent {
  std::string linkage;
  std::vector<std::string> names;
};
Result<Parent> readLocator(std::span<const std::byte> locator);
Result<std::vector<std::byte>> makeLocator(const Uuid& parentDataWrite, const std::string& name);
constexpr std::uint64_t kLocatorRoom = 64_KiB;  ///< kept for the locator in the metadata region

class VhdxImage final : public MappedImage, private BlockTable {
 public:
  VhdxImage(const OpenContext& context, std::shared_ptr<BlockFile> file, Contents contents,
            std::unique_ptr<Image> parent, std::string parentName, bool hadLog);
  ~VhdxImage() override;

  const Uuid& dataWriteId() const { return contents_.header.dataWrite; }
  std::uint32_t sectorBytes() const { return contents_.sectorBytes; }

  int settle() override;
  Result<ImageInfo> info() override;
  Result<CheckResult> check(Repair repair) override;
  Status resize(std::uint64_t newBytes, Preallocation preallocation) override;
  Status changeBacking(const std::string& name, const std::string& format) override;
  Status makeEmpty() override;

 protected:
  int map(std::uint64_t offset, std::uint64_t length, Mapping& mapping) override;
  int reserve(std::uint64_t offset, std::uint64_t& length, std::uint64_t& host) override;
  int publish(std::uint64_t offset, std::uint64_t length, std::uint64_t host) override;
  int publishZero(std::uint64_t offset, std::uint64_t& length) override;
  int beginWriting() override;
  int writeTables(const std::vector<TableCache::Copy>& copies) override;
  bool hasBacking() const override { return contents_.hasParent(); }

 private:
  std::uint64_t blocks() const override { return contents_.blocks(); }
  std::uint64_t unitBytes() const override { return 1_MiB; }
  std::uint32_t blockUnits() const override { return static_cast<std::uint32_t>(shape_.blockBytes / 1_MiB); }
  std::uint64_t firstUnit() const override { return 1; }
  std::uint64_t endUnit() const override { return (end_ + 1_MiB - 1) / 1_MiB; }
  int unitOf(std::uint64_t block, std::uint32_t& unit) override;
  int setUnit(std::uint64_t block, std::uint32_t unit) override;
  std::vector<Used> tables() override;

  void setShapeOf();
  /// The table's index of a block's entry, and of the bitmap's that has its sectors.
  std::uint64_t indexOf(std::uint64_t block) const { return block + block / contents_.chunkRatio(); }
  std::uint64_t bitmapIndexOf(std::uint64_t block) const {
    return (block / contents_.chunkRatio()) * (contents_.chunkRatio() + 1) + contents_.chunkRatio();
  }
  int entry(std::uint64_t index, std::uint64_t& value);
  int setEntry(std::uint64_t index, std::uint64_t value);
  /// The page of the file that has byte `offset`; `at` leads to that byte.
  int page(std::uint64_t offset, std::byte*& at);
  int mapPartial(std::uint64_t offset, std::uint64_t value, std::uint64_t length, Mapping& mapping);
  int bitmapByte(std::uint64_t sector, std::uint64_t bitmap, std::byte*& at);
  int setBitmap(std::uint64_t offset, std::uint64_t length);
  int moveTable(std::uint64_t bytes);
  int changeSize(std::uint64_t newBytes);
  int putBytes(std::uint64_t offset, std::span<const std::byte> bytes);

  Contents contents_;
  std::string parentName_;
  bool hadLog_;
  std::optional<LogWriter> log_;
};

}  // namespace lodge::image::vhdx
