// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"

namespace lodge::state {

/// Saved memory is divided into pieces of this size, each with a checksum, so that they can be loaded one by one.
inline constexpr std::size_t kChunkBytes = 64 << 10;

/// Where a piece lies in the file. `stored` is 0 for one of zeroes, the piece's size for one as it is, else the size of
/// its Zstandard frame.
struct Chunk {
  std::uint64_t offset;
  std::uint32_t stored;
  std::uint32_t checksum;  ///< CRC-32C of the piece's bytes in memory
};

/// Called with how many bytes are done and of how many.
using Progress = std::function<void(std::uint64_t done, std::uint64_t total)>;

/// Writes a state file beside its place, and puts it there when it is whole and on the disk: whatever happens before,
/// the file of before stays. Destroyed without commit(), it leaves nothing.
class StateFileWriter {
 public:
  /// `path` may exist. Errors: permissionDenied, notFound, busy (another save is writing it), io.
  static Result<std::unique_ptr<StateFileWriter>> create(const std::string& path);
  ~StateFileWriter();
  StateFileWriter(const StateFileWriter&) = delete;
  StateFileWriter& operator=(const StateFileWriter&) = delete;

  /// All of memory, of which `fd` is the file: its holes are not read. Zero pages become holes. Errors: io (no space
  /// left...).
  Status writeMemory(std::span<const std::byte> memory, int fd, bool compress, const Progress& progress);
  Status writeSections(std::span<const std::byte> sections);
  /// Makes it durable. Errors: io.
  Status commit();

  std::uint64_t bytesWritten() const { return written_; }

 private:
  StateFileWriter() = default;
  Status writeChunk(std::span<const std::byte> chunk, bool compress);
  Status writeAt(std::uint64_t offset, std::span<const std::byte> bytes);

  std::string path_, temporary_;
  UniqueFd file_;
  bool committed_ = false;
  std::uint64_t end_ = 0;  ///< where the next thing goes
  std::uint64_t memoryBytes_ = 0, sectionsAt_ = 0, written_ = 0;
  std::vector<Chunk> chunks_;
  std::vector<std::byte> sections_, packed_;
};

/// An open state file. What it says of itself was checked when it was opened; its pieces of memory are when they are
/// loaded. loadChunk() is thread-safe.
class StateFile {
 public:
  /// Errors: notFound, permissionDenied, corrupt (no state file, truncated, damaged), unsupported (a newer format), io.
  static Result<std::unique_ptr<StateFile>> open(const std::string& path);

  const std::string& path() const { return path_; }
  std::uint64_t memoryBytes() const { return memoryBytes_; }
  std::span<const std::byte> sections() const { return sections_; }
  std::size_t chunkCount() const { return chunks_.size(); }
  std::size_t chunkBytes(std::size_t index) const;
  bool isZero(std::size_t index) const { return chunks_[index].stored == 0; }
  /// `to`: chunkBytes(index) bytes. Errors: corrupt, io.
  Status loadChunk(std::size_t index, std::span<std::byte> to) const;

 private:
  StateFile() = default;
  Status readHeader();
  Status readAt(std::uint64_t offset, std::span<std::byte> to) const;
  Error damaged(const std::string& what) const;

  std::string path_;
  UniqueFd file_;
  std::uint64_t memoryBytes_ = 0;
  std::vector<std::byte> sections_;
  std::vector<Chunk> chunks_;
};

}  // namespace lodge::state
