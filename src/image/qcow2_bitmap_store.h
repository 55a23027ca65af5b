// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "image/bitmaps.h"
#include "image/qcow2_bitmaps.h"

namespace lodge::image::qcow2 {

/// Makes, changes and removes an image's bitmaps. Each change takes effect by one write, of the header or of a bitmap's
/// flags; what takes more is done while the bitmap is marked as in use.
class Qcow2BitmapStore final : public BitmapStore {
 public:
  explicit Qcow2BitmapStore(Qcow2Image& image) : image_(image) {}

  Result<std::vector<BitmapInfo>> list() override;
  Status add(const std::string& name, std::uint64_t granularity, bool recording) override;
  Status remove(const std::string& name) override;
  Status clear(const std::string& name) override;
  Status setRecording(const std::string& name, bool recording) override;
  Status forEachDirty(const std::string& name, const Tell& tell) override;
  Status merge(const std::string& name, BitmapStore& from, const std::string& other) override;
  std::uint64_t diskBytes() const override;

  /// Around a change of the disk's size. In between the bitmaps are marked as in use, and do not record.
  Status beginResize();
  Status endResize(std::uint64_t oldBytes);

 private:
  struct Place {
    std::uint64_t offset, bytes;
  };
  struct Found {
    BitmapDirectory directory;
    std::size_t index = 0;
    Bitmap& bitmap() { return directory.bitmaps[index]; }
  };
  Result<BitmapDirectory> read() const;
  Result<BitmapDirectory> readStored() const;
  Result<Found> find(const std::string& name, bool usable) const;
  /// Before a change: what the image noted is stored, and it notes nothing until end().
  Status begin(const std::string& what);
  Status end();
  Status store(const BitmapDirectory& old, std::vector<Bitmap> bitmaps, const std::vector<Place>& freed);
  int setFlags(const Bitmap& bitmap, std::uint32_t flags);
  int newTable(Bitmap& bitmap, std::vector<std::uint64_t> table);
  int cutPage(std::vector<std::uint64_t>& table, std::uint64_t index, std::uint64_t bits, bool grows);
  Status resized(Bitmap& bitmap, std::uint64_t oldBytes, std::vector<Place>& freed);

  Qcow2Image& image_;
  std::vector<std::string> resizing_;  // those that endResize() is about
};

}  // namespace lodge::image::qcow2
