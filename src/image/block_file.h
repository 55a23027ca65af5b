// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/error.h"

namespace lodge::image {

/// The bytes under an image: a host file, a block device, an NBD export, or memory (tests, fuzzing, power loss).
/// A format driver does all its input and output through this. Calls block, may come from several threads at once, and
/// return 0 or a positive errno value.
class BlockFile {
 public:
  virtual ~BlockFile() = default;
  /// What error messages call it: the path or address as the user or the image gave it.
  virtual const std::string& name() const = 0;
  virtual bool readOnly() const = 0;
  /// Bytes now; grows with writes past the end.
  virtual std::uint64_t size() const = 0;
  /// Bytes that it takes on its storage; size() where that is not known.
  virtual std::uint64_t allocatedBytes() const { return size(); }

  /// What lies past the end reads as zero.
  virtual int readv(std::uint64_t offset, std::span<const iovec> to) = 0;
  /// Extends the file where needed; a gap reads as zero.
  virtual int writev(std::uint64_t offset, std::span<const iovec> from) = 0;
  /// What was written before this call began is on stable storage when it returns.
  virtual int flush() = 0;
  virtual int truncate(std::uint64_t size) = 0;
  /// The range's content is no longer needed; advice only: it may read as before or as zero. Never changes size().
  virtual int discard(std::uint64_t offset, std::uint64_t length) = 0;
  /// The range reads as zero afterwards; `mayUnmap`: holes are welcome, else its blocks stay allocated. May extend.
  virtual int writeZeroes(std::uint64_t offset, std::uint64_t length, bool mayUnmap) = 0;

  struct Extent {
    std::uint64_t length;  ///< 1 to the length asked for
    bool hole;             ///< reads as zero and takes no storage
  };
  /// What begins at `offset`, which is below size(). All data where holes are not known.
  virtual Extent extent(std::uint64_t, std::uint64_t length) { return {length, false}; }

  /// As readv()/writev() if that needs no wait for storage; EAGAIN otherwise (then nothing was done to the file).
  virtual int tryReadv(std::uint64_t, std::span<const iovec>) { return 11 /* EAGAIN */; }
  virtual int tryWritev(std::uint64_t, std::span<const iovec>) { return 11 /* EAGAIN */; }
  /// The descriptor under it for a request made elsewhere (io_uring) that does not grow the file, -1 if it has none;
  /// `direct`: it bypasses the page cache.
  virtual int descriptor(std::uint64_t, std::span<const iovec>, bool& direct) const {
    direct = false;
    return -1;
  }

  int read(std::uint64_t offset, void* to, std::size_t length) {
    iovec v{to, length};
    return readv(offset, {&v, 1});
  }
  int write(std::uint64_t offset, const void* from, std::size_t length) {
    iovec v{const_cast<void*>(from), length};
    return writev(offset, {&v, 1});
  }
};

/// How the bytes get to the disk.
enum class CacheMode : std::uint8_t {
  writeback,  ///< through the host's page cache; flush() reaches the disk
  none,       ///< past the page cache (O_DIRECT) where the file system can; flush() reaches the disk
  unsafe,     ///< through the page cache; flush() does nothing
};

enum class LockMode : std::uint8_t {
  exclusive,  ///< a writer admits no other user; readers admit readers
  share,      ///< none are taken (-U): the image may change under the reader
};

struct FileMode {
  bool readOnly = true;
  CacheMode cache = CacheMode::writeback;
  LockMode lock = LockMode::exclusive;
};

/// Where names lead to: the host's file system, or a set of files in memory. Thread-safe.
class FileSpace {
 public:
  virtual ~FileSpace() = default;
  /// Errors: notFound, permissionDenied, busy (locked), invalidArgument (a folder), io.
  virtual Result<std::shared_ptr<BlockFile>> open(const std::string& path, const FileMode& mode) = 0;
  /// A new, empty, writable file; `replace`: an old one's content is dropped (not when it is locked: busy).
  virtual Result<std::shared_ptr<BlockFile>> create(const std::string& path, bool replace) = 0;
  /// One name for each file however it is written (symbolic links resolved). Errors: notFound, io.
  virtual Result<std::string> canonical(const std::string& path) = 0;
};

/// The host's files and block devices. Locks them as QEMU does (image/file_lock.h).
FileSpace& hostFiles();

/// A writable file in memory, sparse. `limit`: writes past it fail with EFBIG.
std::shared_ptr<BlockFile> makeMemoryFile(std::string name, std::span<const std::byte> content = {},
                                          std::uint64_t limit = std::uint64_t{1} << 50);

/// A file space in memory: names are what create() was given, there are no folders.
std::unique_ptr<FileSpace> makeMemoryFiles();

/// "folder/name" split; folder is "." where there is none.
std::string folderOf(const std::string& path);
std::string fileNameOf(const std::string& path);

}  // namespace lodge::image
