// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "image/vmdk_descriptor.h"
#include "image/vmdk_extent.h"

namespace lodge::image::vmdk {

/// An open VMDK: its descriptor and its extents, one after the other.
class VmdkImage final : public Image {
 public:
  struct Part {
    std::uint64_t start = 0, bytes = 0;
    std::unique_ptr<Image> image;
    SparseExtent* sparse = nullptr;  ///< the same, if it is a sparse one
    std::shared_ptr<BlockFile> file{};
    std::string name{};  ///< as the descriptor has it
    Access access = Access::readWrite;
  };
  /// Where the descriptor's text stands.
  struct Place {
    std::shared_ptr<BlockFile> file;
    std::uint64_t offset = 0, room = 0;
    std::string text{};
    bool embedded = false;
  };

  VmdkImage(Descriptor descriptor, Place place, std::vector<Part> parts, std::unique_ptr<Image> parent,
            std::string parentName, bool readOnly);

  std::uint32_t cid() const { return descriptor_.cid; }

  std::uint64_t size() const override { return bytes_; }
  bool readOnly() const override { return readOnly_; }
  Image* backing() const override { return parent_.get(); }
  int read(std::uint64_t offset, std::span<const iovec> to) override;
  int write(std::uint64_t offset, std::span<const iovec> from) override;
  int flush() override;
  int discard(std::uint64_t offset, std::uint64_t length) override;
  int writeZeroes(std::uint64_t offset, std::uint64_t length, bool mayUnmap) override;
  int blockStatus(std::uint64_t offset, std::uint64_t length, BlockStatus& status) override;
  int tryRead(std::uint64_t offset, std::span<const iovec> to) override;
  int tryWrite(std::uint64_t offset, std::span<const iovec> from) override;
  Result<ImageInfo> info() override;
  Result<CheckResult> check(Repair repair) override;
  Status resize(std::uint64_t newBytes, Preallocation preallocation) override;
  Status changeBacking(const std::string& name, const std::string& format) override;
  Status makeEmpty() override;
  Result<std::unique_ptr<StreamWriter>> streamWriter() override;
  bool streamOnly() const override;

 private:
  Part& partAt(std::uint64_t offset);
  template <class Each>
  int forParts(std::uint64_t offset, std::uint64_t length, Each each);
  /// Before the first write: a new content id, so that children can tell.
  int changeCid();
  int writeDescriptor(const std::string& text);

  Descriptor descriptor_;
  Place place_;
  std::vector<Part> parts_;
  std::unique_ptr<Image> parent_;  // the parts look into it
  std::string parentName_;
  std::uint64_t bytes_ = 0;
  bool readOnly_;
  std::mutex mutex_;
  std::atomic<bool> cidChanged_{false};
};

/// Writes streamOptimized content into the file of an empty image.
std::unique_ptr<StreamWriter> makeStreamWriter(std::shared_ptr<BlockFile> file, const SparseShape& shape);
/// The tables and footer of a stream that has no grains: what makes a new image whole. Returns 0 or errno.
int writeEmptyStream(BlockFile& file, const SparseHeader& header);

}  // namespace lodge::image::vmdk
