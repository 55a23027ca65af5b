// SPDX-License-Identifier: Apache-2.0
#include "state/state_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/text.h"
#include "base/units.h"
#include "state/file_layout.h"

namespace lodge::state {

namespace {
constexpr std::uint64_t kMostMemory = 1_TiB + 1_GiB, kMostSections = 1_GiB;
}

Error StateFile::damaged(const std::string& what) const {
  return Error(ErrorKind::corrupt, "state file " + inQuotes(path_) + ": " + what)
      .withHint("the file was cut short or changed after it was saved; use another copy of it");
}

Result<std::unique_ptr<StateFile>> StateFile::open(const std::string& path) {
  auto file = std::unique_ptr<StateFile>(new StateFile());
  file->path_ = path;
  file->file_ = UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file->file_) return Error::fromErrno(errno, "open state file " + inQuotes(path));
  if (Status s = file->readHeader(); !s) return std::move(s).error();
  return file;
}

Status StateFile::readAt(std::uint64_t offset, std::span<std::byte> to) const {
  for (std::size_t done = 0; done < to.size();) {
    ssize_t n = ::pread(file_.get(), to.data() + done, to.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Error::fromErrno(errno, "read state file " + inQuotes(path_));
    if (n == 0) return damaged("it ends too early");
    done += static_cast<std::size_t>(n);
  }
  return {};
}

Status StateFile::readHeader() {
  struct stat info {};
  if (::fstat(file_.get(), &info) != 0) return Error::fromErrno(errno, "look at state file " + inQuotes(path_));
  auto size = static_cast<std::uint64_t>(info.st_size);
  FileHeader header{};
  bool there = S_ISREG(info.st_mode) && size >= kDataStart;
  if (there) {
    if (Status s = readAt(0, writableBytesOf(header)); !s) return s;
  }
  if (!there || header.magic != kMagic) {
    return Error(ErrorKind::corrupt, inQuotes(path_) + " is not a state file")
        .withHint("name a file that 'lodge save' wrote");
  }
  if (header.version > kFormatVersion) {
    return Error(ErrorKind::unsupported, fmt::format("state file {}: it has format version {}, and this Lodge knows {}",
                                                     inQuotes(path_), header.version, kFormatVersion))
        .withHint("restore it with the Lodge that saved it");
  }
  if (header.version == 0 || crc32c(bytesOf(header).first(sizeof header - 4)) != header.checksum)
    return damaged("its header is damaged");
  if (header.fileBytes != size)
    return damaged(fmt::format("it has {} bytes, and should have {}", size, header.fileBytes));
  auto inFile = [&](std::uint64_t at, std::uint64_t length) { return at <= size && length <= size - at; };
  bool sane = header.chunkBytes == kChunkBytes && header.memoryBytes <= kMostMemory &&
              header.memoryBytes % kPageSize == 0 && header.sectionsBytes <= kMostSections &&
              header.chunkCount == (header.memoryBytes + kChunkBytes - 1) / kChunkBytes &&
              inFile(header.sectionsAt, header.sectionsBytes) &&
              inFile(header.chunksAt, header.chunkCount * sizeof(Chunk));
  if (!sane) return damaged("its header contradicts itself");
  memoryBytes_ = header.memoryBytes;
  sections_.resize(header.sectionsBytes);
  chunks_.resize(header.chunkCount);
  if (Status s = readAt(header.sectionsAt, sections_); !s) return s;
  if (Status s = readAt(header.chunksAt, std::as_writable_bytes(std::span(chunks_))); !s) return s;
  if (crc32c(sections_) != header.sectionsChecksum) return damaged("the state of its devices is damaged");
  if (crc32c(std::as_bytes(std::span(chunks_))) != header.chunksChecksum) return damaged("its table is damaged");
  for (std::size_t index = 0; index < chunks_.size(); ++index) {
    const Chunk& chunk = chunks_[index];
    if (chunk.stored > chunkBytes(index) || !inFile(chunk.offset, chunk.stored))
      return damaged("its table leads beyond its end");
  }
  return {};
}

std::size_t StateFile::chunkBytes(std::size_t index) const {
  return static_cast<std::size_t>(std::min<std::uint64_t>(kChunkBytes, memoryBytes_ - index * kChunkBytes));
}

Status StateFile::loadChunk(std::size_t index, std::span<std::byte> to) const {
  const Chunk& chunk = chunks_[index];
  if (chunk.stored == 0) {
    std::ranges::fill(to, std::byte{0});
    return {};
  }
  if (chunk.stored == to.size()) {
    if (Status s = readAt(chunk.offset, to); !s) return s;
  } else {
    std::array<std::byte, kChunkBytes> packed;
    auto part = std::span(packed).first(chunk.stored);
    if (Status s = readAt(chunk.offset, part); !s) return s;
    std::size_t length = ZSTD_decompress(to.data(), to.size(), part.data(), part.size());
    if (ZSTD_isError(length) != 0 || length != to.size()) return damaged("a piece of memory does not unpack");
  }
  if (crc32c(to) != chunk.checksum) return damaged("a piece of memory is damaged");
  return {};
}

}  // namespace lodge::state
