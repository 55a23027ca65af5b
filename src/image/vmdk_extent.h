// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "image/format.h"
#include "image/mapped_check.h"
#include "image/mapped_image.h"
#include "image/vmdk_layout.h"

namespace lodge::image::vmdk {

/// Where an extent's unwritten grains come from: the parent disk, from some byte of it on.
struct ParentView {
  Image* image = nullptr;
  std::uint64_t start = 0;
};

/// How a sparse extent's two levels of tables are to be read.
struct SparseShape {
  enum class Kind : std::uint8_t { hosted, cowd, seSparse };
  Kind kind = Kind::hosted;
  SparseHeader header{};                  ///< of hosted ones
  std::uint64_t capacity = 0, grain = 0;  ///< bytes
  std::uint64_t entriesPerTable = 0;
  std::uint64_t directory = 0, redundantDirectory = 0;  ///< bytes from the file's start; 0: none
  std::uint64_t tables = 0, grains = 0;                 ///< the same, of seSparse
  bool zeroedGrains = false, compressed = false;

  std::uint64_t entryBytes() const { return kind == Kind::seSparse ? 8 : 4; }
  std::uint64_t tableBytes() const { return entriesPerTable * entryBytes(); }
  std::uint64_t directoryEntries() const {
    std::uint64_t span = grain * entriesPerTable;
    return (capacity + span - 1) / span;
  }
};

/// Reads whichever header the file begins with. Errors: corrupt, unsupported.
Result<SparseShape> readSparseShape(BlockFile& file);

/// One sparse extent file, as a disk of its own.
class SparseExtent final : public MappedImage, private BlockTable {
 public:
  /// Reads the grain directory. Errors: corrupt, io, unsupported (too large).
  static Result<std::unique_ptr<SparseExtent>> open(std::shared_ptr<BlockFile> file, bool readOnly);
  ~SparseExtent() override { close(); }

  void setParent(ParentView parent) { parent_ = parent; }
  /// The parent's content is what unwritten grains read as, even if it is not open.
  void setIsChild(bool child) { child_ = child; }
  const SparseShape& shape() const { return sparse_; }
  BlockFile& file() { return *file_; }
  bool compressed() const { return sparse_.compressed; }
  /// No grain was written yet.
  bool empty() const;

  Result<ImageInfo> info() override;
  Result<CheckResult> check(Repair repair) override;
  Status resize(std::uint64_t newBytes, Preallocation preallocation) override;
  Status makeEmpty() override;

 protected:
  int map(std::uint64_t offset, std::uint64_t length, Mapping& mapping) override;
  int reserve(std::uint64_t offset, std::uint64_t& length, std::uint64_t& host) override;
  int publish(std::uint64_t offset, std::uint64_t length, std::uint64_t host) override;
  int publishZero(std::uint64_t offset, std::uint64_t& length) override;
  int readCompressed(const Mapping& mapping, std::uint64_t offset, std::span<const iovec> to) override;
  int readUnallocated(std::uint64_t offset, std::span<const iovec> to) override;
  bool hasBacking() const override { return child_; }

 private:
  SparseExtent(std::shared_ptr<BlockFile> file, bool readOnly, const SparseShape& shape);
  Status loadDirectory();

  std::uint64_t blocks() const override { return (virtualBytes_ + sparse_.grain - 1) / sparse_.grain; }
  std::uint64_t unitBytes() const override { return kSector; }
  std::uint32_t blockUnits() const override { return static_cast<std::uint32_t>(sparse_.grain / kSector); }
  std::uint64_t firstUnit() const override { return 1; }
  std::uint64_t endUnit() const override { return (end_ + kSector - 1) / kSector; }
  std::uint64_t nextMapped(std::uint64_t block) override;
  int unitOf(std::uint64_t block, std::uint32_t& unit) override;
  int setUnit(std::uint64_t block, std::uint32_t unit) override;
  std::vector<Used> tables() override;

  /// The grain's table entry as it stands; 0 where there is no table.
  int entry(std::uint64_t grain, std::uint64_t& value);
  int setEntry(std::uint64_t grain, std::uint32_t value);
  int setIn(std::vector<std::uint64_t>& directory, std::uint64_t at, std::uint64_t grain, std::uint32_t value);
  int decode(std::uint64_t grain, Mapping& one);
  bool tablesOverlap() const;
  int checkCompressed(CheckResult& result);
  int compareTables(Repair repair, CheckResult& result);

  SparseShape sparse_;
  ParentView parent_;
  bool child_ = false;
  std::vector<std::uint64_t> directory_, redundant_;  ///< byte offsets of tables; 0: none
};

/// A file, or a part of it, that is the disk's bytes as they are.
std::unique_ptr<Image> makeFlatExtent(std::shared_ptr<BlockFile> file, std::uint64_t offset, std::uint64_t bytes,
                                      bool readOnly);
/// Zeroes that cannot be written.
std::unique_ptr<Image> makeZeroExtent(std::uint64_t bytes);

}  // namespace lodge::image::vmdk
