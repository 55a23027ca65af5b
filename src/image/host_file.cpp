// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <mutex>
#include <set>

#include "base/file.h"
#include "base/text.h"
#include "image/block_file.h"
#include "image/file_lock.h"
#include "image/nbd_client.h"
#include "image/page_filler.h"
#include "image/store.h"

namespace lodge::image {

namespace {

/// What O_DIRECT asks of offsets, lengths and addresses on any disk in use.
constexpr std::uint64_t kDirectAlignment = 4096;

/// A regular file or a block device. `direct` is a second descriptor that bypasses the page cache, for aligned requests
/// under CacheMode::none; the kernel keeps the two coherent.
class HostFile : public BlockFile {
 public:
  HostFile(std::string name, UniqueFd fd, UniqueFd direct, std::uint64_t size, bool device, const FileMode& mode)
      : name_(std::move(name)),
        fd_(std::move(fd)),
        direct_(std::move(direct)),
        size_(size),
        device_(device),
        readOnly_(mode.readOnly),
        unsafe_(mode.cache == CacheMode::unsafe) {
    struct statfs about {};
    if (!device_ && ::fstatfs(fd_.get(), &about) == 0) system_ = about.f_type;
    quickFlags_ = system_ == TMPFS_MAGIC ? 0 : RWF_NOWAIT;
  }
  ~HostFile() override {
    if (filler_) (void)filler_->trim();
  }

  /// The file is new, and most of what is written to it is written once, large parts at a time.
  void expectAll() {
    reserves_ = system_ == EXT4_SUPER_MAGIC;
    if (system_ == TMPFS_MAGIC) filler_ = PageFiller::create(fd_.get(), size());
  }

  const std::string& name() const override { return name_; }
  bool readOnly() const override { return readOnly_; }
  std::uint64_t size() const override { return size_.load(std::memory_order_relaxed); }
  std::uint64_t allocatedBytes() const override {
    struct stat info {};
    return device_ || ::fstat(fd_.get(), &info) != 0 ? size() : static_cast<std::uint64_t>(info.st_blocks) * 512;
  }
  int descriptor(std::uint64_t offset, std::span<const iovec> vectors, bool& direct) const override {
    int fd = choose(offset, vectors);
    direct = direct_ && fd == direct_.get();
    return offset + lengthOf(vectors) <= size() ? fd : -1;
  }

  int readv(std::uint64_t offset, std::span<const iovec> to) override {
    return readFully(choose(offset, to), offset, to, true);
  }
  int writev(std::uint64_t offset, std::span<const iovec> from) override {
    if (readOnly_) return EROFS;
    if (reserves_) reserve(offset, lengthOf(from));
    int error = filler_ ? filler_->write(offset, from) : writeFully(choose(offset, from), offset, from);
    if (error == 0) grow(offset + lengthOf(from));
    return error;
  }
  int tryReadv(std::uint64_t offset, std::span<const iovec> to) override {
    if (direct_ || to.size() > IOV_MAX || !quickReads_.load(std::memory_order_relaxed)) return EAGAIN;
    ssize_t n = ::preadv2(fd_.get(), to.data(), static_cast<int>(to.size()), off(offset), quickFlags_);
    return endOfTry(n, lengthOf(to), quickReads_);
  }
  int tryWritev(std::uint64_t offset, std::span<const iovec> from) override {
    std::uint64_t length = lengthOf(from);
    if (direct_ || readOnly_ || from.size() > IOV_MAX || offset + length > size()) return EAGAIN;
    if (!quickWrites_.load(std::memory_order_relaxed)) return EAGAIN;
    ssize_t n = ::pwritev2(fd_.get(), from.data(), static_cast<int>(from.size()), off(offset), quickFlags_);
    return endOfTry(n, length, quickWrites_);
  }

  int flush() override {
    if (filler_) {
      if (int error = filler_->trim(); error != 0) return error;
    }
    return unsafe_ || readOnly_ || ::fdatasync(fd_.get()) == 0 ? 0 : errno;
  }
  int truncate(std::uint64_t bytes) override {
    if (readOnly_) return EROFS;
    if (device_) return bytes <= size() ? 0 : ENOSPC;
    if (filler_) {
      if (int error = filler_->truncate(bytes); error != 0) return error;
    } else if (::ftruncate(fd_.get(), off(bytes)) != 0) {
      return errno;
    }
    size_.store(bytes, std::memory_order_relaxed);
    return 0;
  }
  int discard(std::uint64_t offset, std::uint64_t length) override {
    if (readOnly_) return EROFS;
    int error = device_ ? deviceRange(BLKDISCARD, offset, length) : punch(offset, length);
    return error == EOPNOTSUPP || error == ENODEV || error == ENOTTY ? 0 : error;  // discard is advice
  }
  int writeZeroes(std::uint64_t offset, std::uint64_t length, bool mayUnmap) override {
    if (readOnly_) return EROFS;
    if (length == 0) return 0;
    int error = EOPNOTSUPP;
    if (device_) {
      error = deviceRange(BLKZEROOUT, offset, length);
    } else if (mayUnmap) {
      error = offset < size() ? punch(offset, length) : 0;
      if (error == 0 && offset + length > size()) return truncate(offset + length);
    } else {
      error = ::fallocate(fd_.get(), FALLOC_FL_ZERO_RANGE, off(offset), off(length)) == 0 ? 0 : errno;
      if (error == 0) grow(offset + length);
    }
    return error == 0 || error == ENOSPC ? error : writeZeroBytes(offset, length);
  }

  Extent extent(std::uint64_t offset, std::uint64_t length) override {
    if (device_) return {length, false};
    // The kernel looks for the end of the data page by page, and is asked again for each part of them. What has become
    // a hole since then may well be called data.
    {
      std::lock_guard lock(dataMutex_);
      if (offset >= dataFrom_ && offset < dataTo_) return {std::min(length, dataTo_ - offset), false};
    }
    off_t data = ::lseek(fd_.get(), off(offset), SEEK_DATA);
    if (data < 0) return {length, errno == ENXIO};
    if (static_cast<std::uint64_t>(data) > offset)
      return {std::min(length, static_cast<std::uint64_t>(data) - offset), true};
    off_t hole = ::lseek(fd_.get(), off(offset), SEEK_HOLE);
    if (hole <= off(offset)) return {length, false};
    {
      std::lock_guard lock(dataMutex_);
      dataFrom_ = offset;
      dataTo_ = static_cast<std::uint64_t>(hole);
    }
    return {std::min(length, static_cast<std::uint64_t>(hole) - offset), false};
  }

 private:
  static off_t off(std::uint64_t value) { return static_cast<off_t>(value); }
  static std::uint64_t lengthOf(std::span<const iovec> vectors) {
    std::uint64_t length = 0;
    for (const iovec& v : vectors) length += v.iov_len;
    return length;
  }
  int choose(std::uint64_t offset, std::span<const iovec> vectors) const {
    if (!direct_) return fd_.get();
    std::uint64_t bits = offset;
    for (const iovec& v : vectors) bits |= reinterpret_cast<std::uintptr_t>(v.iov_base) | v.iov_len;
    return bits % kDirectAlignment == 0 ? direct_.get() : fd_.get();
  }
  /// 0 if all of it was done. What the file system cannot do without waiting (ext4: writes) is not tried again.
  static int endOfTry(ssize_t done, std::uint64_t length, std::atomic<bool>& quick) {
    if (done < 0 && errno == EOPNOTSUPP) quick.store(false, std::memory_order_relaxed);
    return done >= 0 && static_cast<std::uint64_t>(done) == length ? 0 : EAGAIN;
  }
  void grow(std::uint64_t end) {
    std::uint64_t now = size_.load(std::memory_order_relaxed);
    while (now < end && !size_.compare_exchange_weak(now, end, std::memory_order_relaxed)) {
    }
  }
  /// ext4 sets each new block aside for itself when it is written, but a stretch as one. What fails here fails in the
  /// write, too, or does no harm.
  void reserve(std::uint64_t offset, std::uint64_t length) {
    constexpr std::uint64_t kWorthIt = 64 << 10;
    if (length >= kWorthIt) ::fallocate(fd_.get(), FALLOC_FL_KEEP_SIZE, off(offset), off(length));
  }
  int punch(std::uint64_t offset, std::uint64_t length) {
    return ::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off(offset), off(length)) == 0 ? 0
                                                                                                             : errno;
  }
  int deviceRange(unsigned long request, std::uint64_t offset, std::uint64_t length) {
    std::uint64_t range[2] = {offset, length};
    return ::ioctl(fd_.get(), request, range) == 0 ? 0 : errno;
  }
  int writeZeroBytes(std::uint64_t offset, std::uint64_t length) {
    static const std::array<std::byte, 65536> zeroes{};
    while (length != 0) {
      std::size_t part = std::min<std::uint64_t>(length, zeroes.size());
      if (int error = write(offset, zeroes.data(), part); error != 0) return error;
      offset += part;
      length -= part;
    }
    return 0;
  }

  std::string name_;
  UniqueFd fd_, direct_;
  std::unique_ptr<PageFiller> filler_;
  std::atomic<std::uint64_t> size_;
  bool device_, readOnly_, unsafe_, reserves_ = false;
  decltype(statfs::f_type) system_ = 0;  // the file system's magic; 0: none
  int quickFlags_ = 0;  // of a transfer that is not to wait: files in memory do not, and know no flag for it
  std::atomic<bool> quickReads_{true}, quickWrites_{true};
  std::mutex dataMutex_;
  std::uint64_t dataFrom_ = 0, dataTo_ = 0;  // data without a hole, as extent() was told last
};

Error openError(int error, const std::string& path, bool writing) {
  Error failure = Error::fromErrno(error, "open " + inQuotes(path));
  if (writing && (error == EACCES || error == EROFS || error == EPERM))
    return std::move(failure).withHint("open it read-only (readonly), or write elsewhere (--snapshot)");
  return failure;
}

/// Which files this process has made, until they are opened to be written.
class NewFiles {
 public:
  void add(int fd) {
    struct stat info {};
    std::lock_guard lock(mutex_);
    if (::fstat(fd, &info) == 0) files_.emplace(info.st_dev, info.st_ino);
  }
  /// True once for each of them.
  bool take(int fd) {
    struct stat info {};
    std::lock_guard lock(mutex_);
    return ::fstat(fd, &info) == 0 && files_.erase({info.st_dev, info.st_ino}) != 0;
  }

 private:
  std::mutex mutex_;
  std::set<std::pair<dev_t, ino_t>> files_;
};

class HostFiles : public FileSpace {
 public:
  Result<std::shared_ptr<BlockFile>> open(const std::string& path, const FileMode& mode) override {
    if (path.starts_with("nbd://") || path.starts_with("nbd+unix://")) return openNbd(path, mode.readOnly);
    int flags = (mode.readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK;  // a FIFO must not hang us
    UniqueFd fd(::open(path.c_str(), flags));
    if (!fd) return openError(errno, path, !mode.readOnly);
    bool fresh = !mode.readOnly && new_.take(fd.get()) && mode.cache == CacheMode::unsafe;
    auto file = finish(path, std::move(fd), mode);
    if (!file) return std::move(file).error();
    if (fresh) (*file)->expectAll();
    return std::shared_ptr<BlockFile>(std::move(*file));
  }

  Result<std::shared_ptr<BlockFile>> create(const std::string& path, bool replace) override {
    UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK | O_CREAT | (replace ? 0 : O_EXCL), 0644));
    if (!fd) return Error::fromErrno(errno, "create " + inQuotes(path));
    int own = fd.get();
    auto file = finish(path, std::move(fd), {.readOnly = false});
    if (!file) return std::move(file).error();
    if (int error = (*file)->truncate(0); error != 0) return Error::fromErrno(error, "empty " + inQuotes(path));
    new_.add(own);
    return std::shared_ptr<BlockFile>(std::move(*file));
  }

  Result<std::string> canonical(const std::string& path) override {
    char* resolved = ::realpath(path.c_str(), nullptr);
    if (!resolved) return Error::fromErrno(errno, "find " + inQuotes(path));
    std::string text = resolved;
    std::free(resolved);  // NOLINT: realpath allocates with malloc
    return text;
  }

 private:
  static Result<std::shared_ptr<HostFile>> finish(const std::string& path, UniqueFd fd, const FileMode& mode) {
    struct stat info {};
    if (::fstat(fd.get(), &info) != 0) return Error::fromErrno(errno, "stat " + inQuotes(path));
    std::uint64_t size = static_cast<std::uint64_t>(info.st_size);
    bool device = S_ISBLK(info.st_mode);
    if (device && ::ioctl(fd.get(), BLKGETSIZE64, &size) != 0)
      return Error::fromErrno(errno, "size of " + inQuotes(path));
    if (!device && !S_ISREG(info.st_mode))
      return Error(ErrorKind::invalidArgument,
                   "open " + inQuotes(path) + ": neither a regular file nor a block device");
    if (mode.lock == LockMode::exclusive) {
      if (Status locked = lockImage(fd.get(), !mode.readOnly, path); !locked) return std::move(locked).error();
    }
    UniqueFd direct;
    if (mode.cache == CacheMode::none) {
      std::string own = "/proc/self/fd/" + std::to_string(fd.get());
      direct.reset(::open(own.c_str(), (mode.readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_DIRECT));
    }
    return std::make_shared<HostFile>(path, std::move(fd), std::move(direct), size, device, mode);
  }

  NewFiles new_;
};

}  // namespace

FileSpace& hostFiles() {
  static HostFiles files;
  return files;
}

std::string folderOf(const std::string& path) {
  std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::string fileNameOf(const std::string& path) {
  return path.substr(path.rfind('/') + 1);
}

}  // namespace lodge::image
