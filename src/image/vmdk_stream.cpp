// SPDX-License-Identifier: Apache-2.0
// streamOptimized VMDKs: compressed grains behind markers, tables as they are complete, the directory and a second
// header at the end. Written from the beginning to the end without going back.
#include <libdeflate.h>

#include <cerrno>
#include <cstring>

#include "base/units.h"
#include "image/randomness.h"
#include "image/vmdk_image.h"

namespace lodge::image::vmdk {

namespace {

constexpr std::size_t kBuffer = 1_MiB;

struct FreeCompressor {
  void operator()(libdeflate_compressor* c) const { libdeflate_free_compressor(c); }
};

/// The thread's own. To compress: level 5 makes as little of it as zlib's usual 6. Else level 0, which stores.
libdeflate_compressor* compressor(bool compresses) {
  thread_local std::unique_ptr<libdeflate_compressor, FreeCompressor> storing(libdeflate_alloc_compressor(0));
  thread_local std::unique_ptr<libdeflate_compressor, FreeCompressor> compressing(libdeflate_alloc_compressor(5));
  return compresses ? compressing.get() : storing.get();
}

class Writer final : public StreamWriter {
 public:
  Writer(std::shared_ptr<BlockFile> file, const SparseShape& shape)
      : file_(std::move(file)),
        header_(shape.header),
        grain_(shape.grain),
        perTable_(shape.entriesPerTable),
        capacity_(shape.capacity),
        position_(shape.header.overhead * kSector),
        directory_(shape.directoryEntries()),
        table_(shape.entriesPerTable) {
    buffer_.reserve(kBuffer + grain_ * 2);
  }

  std::uint64_t unitBytes() const override { return grain_; }

  int encode(std::span<const std::byte> unit, std::vector<std::byte>& encoded) const override {
    thread_local std::vector<std::byte> padded;
    if (unit.size() < grain_) {
      // The disk's last grain is stored whole all the same.
      padded.assign(unit.begin(), unit.end());
      padded.resize(grain_);
      unit = padded;
    }
    // Every grain is a zlib stream, what cannot be compressed too.
    libdeflate_compressor* own = compressor(!looksRandom(unit));
    if (!own) return ENOMEM;
    encoded.resize(libdeflate_zlib_compress_bound(own, unit.size()));
    std::size_t n = libdeflate_zlib_compress(own, unit.data(), unit.size(), encoded.data(), encoded.size());
    encoded.resize(n);
    return n == 0 ? EIO : 0;
  }

  int put(std::uint64_t offset, std::span<const std::byte>, std::span<const std::byte> encoded) override {
    std::uint64_t grain = offset / grain_, table = grain / perTable_;
    if (offset >= capacity_ || offset % grain_ != 0 || (started_ && offset < next_)) return EINVAL;
    if (started_ && table != current_) {
      if (int error = endTable(); error != 0) return error;
    }
    current_ = table;
    started_ = true;
    next_ = offset + grain_;
    if (position_ / kSector > 0xffffffff) return EFBIG;
    table_[grain % perTable_] = static_cast<std::uint32_t>(position_ / kSector);
    Marker marker{};
    marker.value = offset / kSector;
    marker.bytes = static_cast<std::uint32_t>(encoded.size());
    append({reinterpret_cast<const std::byte*>(&marker), kGrainMarkerBytes});
    append(encoded);
    pad();
    return buffer_.size() >= kBuffer ? flushBuffer() : 0;
  }

  int finish() override {
    if (started_) {
      if (int error = endTable(); error != 0) return error;
    }
    std::vector<std::byte> bytes(alignUp(directory_.size() * 4, kSector));
    std::memcpy(bytes.data(), directory_.data(), directory_.size() * 4);
    addMarker(kDirectory, bytes.size() / kSector);
    header_.directory = position_ / kSector;
    append(bytes);
    addMarker(kFooter, 1);
    append(bytesOf(header_));
    addMarker(kEndOfStream, 0);
    if (int error = flushBuffer(); error != 0) return error;
    return file_->truncate(position_);
  }

 private:
  void append(std::span<const std::byte> bytes) {
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
    position_ += bytes.size();
  }
  void pad() {
    std::uint64_t more = alignUp(position_, kSector) - position_;
    buffer_.resize(buffer_.size() + more);
    position_ += more;
  }
  void addMarker(MarkerType type, std::uint64_t sectors) {
    Marker marker{};
    marker.value = sectors;
    marker.type = type;
    append(bytesOf(marker));
    pad();
  }
  int endTable() {
    addMarker(kTable, alignUp(perTable_ * 4, kSector) / kSector);
    if (position_ / kSector > 0xffffffff) return EFBIG;
    directory_[current_] = static_cast<std::uint32_t>(position_ / kSector);
    append(std::as_bytes(std::span(table_)));
    pad();
    table_.assign(perTable_, Le32{});
    return 0;
  }
  int flushBuffer() {
    int error = file_->write(position_ - buffer_.size(), buffer_.data(), buffer_.size());
    buffer_.clear();
    return error;
  }

  std::shared_ptr<BlockFile> file_;
  SparseHeader header_;
  std::uint64_t grain_, perTable_, capacity_, position_;  ///< position_: of the buffer's end in the file
  std::vector<Le32> directory_, table_;
  std::vector<std::byte> buffer_;
  std::uint64_t current_ = 0, next_ = 0;
  bool started_ = false;
};

}  // namespace

std::unique_ptr<StreamWriter> makeStreamWriter(std::shared_ptr<BlockFile> file, const SparseShape& shape) {
  return std::make_unique<Writer>(std::move(file), shape);
}

int writeEmptyStream(BlockFile& file, const SparseHeader& header) {
  SparseShape shape;
  shape.header = header;
  shape.grain = header.grainSize * kSector;
  shape.capacity = header.capacity * kSector;
  shape.entriesPerTable = header.entriesPerTable;
  // The writer keeps the file; this one outlives it.
  std::shared_ptr<BlockFile> borrowed(&file, [](BlockFile*) {});
  return Writer(std::move(borrowed), shape).finish();
}

}  // namespace lodge::image::vmdk
