// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/text.h"
#include "base/units.h"
#include "state/file_layout.h"
#include "state/state_file.h"

namespace lodge::state {

namespace {

bool isZero(std::span<const std::byte> bytes) {
  return bytes.empty() ||
         (bytes[0] == std::byte{0} && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

std::string folderOf(const std::string& path) {
  std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

/// Whether the open file is still the one of that name: another save may have ended, and renamed it, meanwhile.
bool isNamed(int fd, const std::string& path) {
  struct stat opened {
  }, named{};
  return ::fstat(fd, &opened) == 0 && ::lstat(path.c_str(), &named) == 0 && opened.st_dev == named.st_dev &&
         opened.st_ino == named.st_ino;
}

}  // namespace

Result<std::unique_ptr<StateFileWriter>> StateFileWriter::create(const std::string& path) {
  auto writer = std::unique_ptr<StateFileWriter>(new StateFileWriter());
  struct stat info {};
  if (::stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
    return Error(ErrorKind::invalidArgument, "write " + inQuotes(path) + ": it is not a regular file")
        .withHint("name a file that does not exist, or an earlier state");
  }
  std::string temporary = path + ".part";
  // What a save that was killed left behind is written over; one that is still at it holds the lock.
  UniqueFd file;
  do {
    file.reset(::open(temporary.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!file) return Error::fromErrno(errno, "create " + inQuotes(temporary));
    if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
      return Error(ErrorKind::busy, "write " + inQuotes(temporary) + ": another save is writing it")
          .withHint("wait for it, or name another file");
    }
  } while (!isNamed(file.get(), temporary));
  writer->path_ = path;
  writer->temporary_ = temporary;
  writer->file_ = std::move(file);
  writer->end_ = kDataStart;
  if (::ftruncate(writer->file_.get(), 0) != 0) return Error::fromErrno(errno, "empty " + inQuotes(temporary));
  return writer;
}

StateFileWriter::~StateFileWriter() {
  if (!committed_ && file_) ::unlink(temporary_.c_str());
}

Status StateFileWriter::writeAt(std::uint64_t offset, std::span<const std::byte> bytes) {
  for (std::size_t done = 0; done < bytes.size();) {
    ssize_t n = ::pwrite(file_.get(), bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      Error error = Error::fromErrno(n == 0 ? EIO : errno, "write " + inQuotes(temporary_));
      if (errno != ENOSPC && errno != EDQUOT) return error;
      return std::move(error).withHint("make room, name a file on another disk, or use --compress");
    }
    done += static_cast<std::size_t>(n);
  }
  written_ += bytes.size();
  return {};
}

Status StateFileWriter::writeChunk(std::span<const std::byte> chunk, bool compress) {
  if (isZero(chunk)) {
    chunks_.push_back({});
    return {};
  }
  Chunk entry{end_, static_cast<std::uint32_t>(chunk.size()), crc32c(chunk)};
  if (compress) {
    packed_.resize(ZSTD_compressBound(kChunkBytes));
    std::size_t packed = ZSTD_compress(packed_.data(), packed_.size(), chunk.data(), chunk.size(), 1);
    if (ZSTD_isError(packed) == 0 && packed < chunk.size()) {
      entry.stored = static_cast<std::uint32_t>(packed);
      chunks_.push_back(entry);
      end_ += packed;
      return writeAt(entry.offset, std::span(packed_).first(packed));
    }
  }
  entry.offset = alignUp(end_, kPageSize);
  end_ = entry.offset + chunk.size();
  chunks_.push_back(entry);
  // Runs of pages with something in them; the others are holes.
  for (std::size_t at = 0; at < chunk.size();) {
    std::size_t start = at;
    while (at < chunk.size() && !isZero(chunk.subspan(at, kPageSize))) at += kPageSize;
    if (at > start) {
      if (Status s = writeAt(entry.offset + start, chunk.subspan(start, at - start)); !s) return s;
    }
    while (at < chunk.size() && isZero(chunk.subspan(at, kPageSize))) at += kPageSize;
  }
  return {};
}

Status StateFileWriter::writeMemory(std::span<const std::byte> memory, int fd, bool compress,
                                    const Progress& progress) {
  memoryBytes_ = memory.size();
  constexpr std::uint64_t kReportStep = 8_MiB;
  std::uint64_t nextReport = 0, dataEnd = 0;
  for (std::uint64_t at = 0; at < memory.size(); at += kChunkBytes) {
    if (progress && at >= nextReport) {
      progress(at, memory.size());
      nextReport = at + kReportStep;
    }
    auto chunk = memory.subspan(at, std::min<std::uint64_t>(kChunkBytes, memory.size() - at));
    if (at >= dataEnd) {
      off_t data = ::lseek(fd, static_cast<off_t>(at), SEEK_DATA);
      if (data < 0 && errno == ENXIO) data = static_cast<off_t>(memory.size());
      // Where the host cannot tell, everything is looked at.
      if (data < 0) data = static_cast<off_t>(at);
      if (static_cast<std::uint64_t>(data) >= at + chunk.size()) {
        chunks_.push_back({});
        continue;
      }
      off_t hole = ::lseek(fd, data, SEEK_HOLE);
      dataEnd = hole < 0 ? memory.size() : static_cast<std::uint64_t>(hole);
    }
    if (Status s = writeChunk(chunk, compress); !s) return s;
  }
  if (progress) progress(memory.size(), memory.size());
  return {};
}

Status StateFileWriter::writeSections(std::span<const std::byte> sections) {
  sections_.assign(sections.begin(), sections.end());
  sectionsAt_ = end_;
  end_ += sections.size();
  return writeAt(sectionsAt_, sections);
}

Status StateFileWriter::commit() {
  FileHeader header{};
  header.magic = kMagic;
  header.version = kFormatVersion;
  header.chunkBytes = kChunkBytes;
  header.memoryBytes = memoryBytes_;
  header.chunksAt = alignUp(end_, kPageSize);
  header.chunkCount = chunks_.size();
  header.sectionsAt = sectionsAt_;
  header.sectionsBytes = sections_.size();
  auto table = std::as_bytes(std::span(chunks_));
  header.fileBytes = header.chunksAt + table.size();
  header.chunksChecksum = crc32c(table);
  header.sectionsChecksum = crc32c(sections_);
  header.checksum = crc32c(bytesOf(header).first(sizeof header - 4));
  if (Status s = writeAt(header.chunksAt, table); !s) return s;
  if (::ftruncate(file_.get(), static_cast<off_t>(header.fileBytes)) != 0)
    return Error::fromErrno(errno, "size " + inQuotes(temporary_));
  if (Status s = writeAt(0, bytesOf(header)); !s) return s;
  if (::fsync(file_.get()) != 0) return Error::fromErrno(errno, "make " + inQuotes(temporary_) + " durable");
  if (::rename(temporary_.c_str(), path_.c_str()) != 0)
    return Error::fromErrno(errno, "rename " + inQuotes(temporary_) + " to " + inQuotes(path_));
  committed_ = true;
  UniqueFd folder(::open(folderOf(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder) ::fsync(folder.get());
  return {};
}

}  // namespace lodge::state
