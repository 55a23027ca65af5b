// SPDX-License-Identifier: Apache-2.0
#include "memory/page_store.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/text.h"

namespace lodge {

namespace {
std::string& path() {
  static std::string text;
  return text;
}

constexpr std::uint64_t kMagic = 0x7365'6761'7065'676c;
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kBuckets = std::size_t{2} * PageStore::kMostPages, kSlots = std::size_t{1} << 20;
constexpr std::size_t kTables = kPageSize + (kBuckets + kSlots) * sizeof(std::uint64_t);
constexpr std::size_t kPages = std::size_t{PageStore::kMostPages} * kPageSize;
constexpr unsigned kMostProbes = 64;
/// Of the file, what OFD locks are about: adding, and having it open.
constexpr int kAddingByte = 0, kOpenByte = 1;

// A bucket: what the hash has above bit 24, and the page's number plus 1 below. Zero: empty.
constexpr std::uint64_t kNumber = (std::uint64_t{1} << 24) - 1;
// A slot: what the hash has above bit 16, and who offered such a page last.
constexpr std::uint64_t kWho = 0xffff;
}  // namespace

void shareGuestPages(std::string file) {
  path() = std::move(file);
}

const std::string& sharedPagesPath() {
  return path();
}

struct PageStore::Header {
  std::uint64_t magic;
  std::uint32_t version;
  std::atomic<std::uint32_t> count;
};

std::uint64_t PageStore::hashOf(Page page) {
  constexpr std::uint64_t kOdd = 0x9e37'79b9'7f4a'7c15;
  constexpr int kTurn = 29;
  std::uint64_t lanes[4] = {1, 2, 3, 4};
  for (std::size_t at = 0; at < kPageSize; at += sizeof lanes) {
    std::uint64_t words[4];
    std::memcpy(words, page.data() + at, sizeof words);
    for (unsigned n = 0; n < 4; ++n) lanes[n] = std::rotl(lanes[n] ^ words[n], kTurn) * kOdd;
  }
  std::uint64_t hash = 0;
  for (std::uint64_t lane : lanes) hash = std::rotl(hash ^ lane, kTurn) * kOdd;
  return hash ^ hash >> 32;
}

bool PageStore::lock(int type, int byte, bool waits) const {
  struct flock range {};
  range.l_type = static_cast<short>(type);
  range.l_whence = SEEK_SET;
  range.l_start = byte;
  range.l_len = 1;
  int done = 0;
  do {
    done = ::fcntl(fd_.get(), waits ? F_OFD_SETLKW : F_OFD_SETLK, &range);
  } while (done != 0 && errno == EINTR);
  return done == 0;
}

Result<std::unique_ptr<PageStore>> PageStore::open(const std::string& path) {
  auto store = std::unique_ptr<PageStore>(new PageStore());
  store->path_ = path;
  Status done = store->openFile(path);
  if (done) done = store->map();
  if (!done) return std::move(done).error().context("open shared pages " + inQuotes(path));
  while (store->self_ == 0) {
    if (::getrandom(&store->self_, sizeof store->self_, 0) < 0 && errno != EINTR) store->self_ = 1;
  }
  return store;
}

/// Whoever finds that nobody has the file open makes it anew; who finds that it was removed meanwhile tries again.
Status PageStore::openFile(const std::string& path) {
  for (;;) {
    fd_ = UniqueFd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!fd_) return Error::fromErrno(errno, "open");
    struct stat ours {};
    struct stat there {};
    if (::fstat(fd_.get(), &ours) != 0) return Error::fromErrno(errno, "look at it");
    if (!S_ISREG(ours.st_mode) || ours.st_uid != ::geteuid() || (ours.st_mode & 077) != 0) {
      return Error(ErrorKind::permissionDenied, "it is somebody else's, or open to others")
          .withHint("remove it, or leave --share-pages out");
    }
    bool alone = lock(F_WRLCK, kOpenByte, false);
    if (!alone && !lock(F_RDLCK, kOpenByte, true)) return Error::fromErrno(errno, "lock");
    if (::stat(path.c_str(), &there) != 0 || there.st_ino != ours.st_ino || there.st_dev != ours.st_dev) continue;
    if (!alone) return {};
    Status made = make();
    if (made && !lock(F_RDLCK, kOpenByte, false)) return Error::fromErrno(errno, "lock");
    if (!made) ::unlink(path.c_str());
    return made;
  }
}

Status PageStore::make() {
  if (::ftruncate(fd_.get(), 0) != 0 || ::ftruncate(fd_.get(), kTables + kPages) != 0)
    return Error::fromErrno(errno, "size");
  // So that a store to a table never finds the file system full.
  if (::fallocate(fd_.get(), 0, 0, kTables) != 0 && errno != EOPNOTSUPP) return Error::fromErrno(errno, "allocate");
  std::byte bytes[sizeof(Header)] = {};
  std::memcpy(bytes, &kMagic, sizeof kMagic);
  std::memcpy(bytes + sizeof kMagic, &kVersion, sizeof kVersion);
  if (::pwrite(fd_.get(), bytes, sizeof bytes, 0) != sizeof bytes) return Error::fromErrno(errno, "write");
  return {};
}

Status PageStore::map() {
  struct stat info {};
  if (::fstat(fd_.get(), &info) != 0 || info.st_size != static_cast<off_t>(kTables + kPages)) {
    return Error(ErrorKind::unsupported, "it is another version's")
        .withHint("end the machines that share pages, or leave --share-pages out");
  }
  void* tables = ::mmap(nullptr, kTables, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd_.get(), 0);
  if (tables == MAP_FAILED) return Error::fromErrno(errno, "map");
  header_ = static_cast<Header*>(tables);
  auto* words = reinterpret_cast<std::atomic<std::uint64_t>*>(static_cast<std::byte*>(tables) + kPageSize);
  index_ = words;
  seen_ = words + kBuckets;
  void* pages = ::mmap(nullptr, kPages, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd_.get(), kTables);
  if (pages == MAP_FAILED) return Error::fromErrno(errno, "map");
  pages_ = static_cast<const std::byte*>(pages);
  for (void* area : {tables, pages}) ::madvise(area, area == tables ? kTables : kPages, MADV_DONTDUMP);
  if (header_->magic == kMagic && header_->version == kVersion) return {};
  return Error(ErrorKind::unsupported, "it is another version's")
      .withHint("end the machines that share pages, or leave --share-pages out");
}

PageStore::~PageStore() {
  if (pages_) ::munmap(const_cast<std::byte*>(pages_), kPages);
  if (header_) ::munmap(header_, kTables);
  if (fd_ && header_ && lock(F_WRLCK, kOpenByte, false)) ::unlink(path_.c_str());
}

bool PageStore::begin() {
  return lock(F_WRLCK, kAddingByte, false);
}

void PageStore::end() {
  lock(F_UNLCK, kAddingByte, false);
}

/// The runtime folder is others', too, and may be small.
bool PageStore::hasRoom() const {
  struct statvfs info {};
  if (::fstatvfs(fd_.get(), &info) != 0) return false;
  std::uint64_t all = std::uint64_t{info.f_blocks} * info.f_frsize, left = std::uint64_t{info.f_bavail} * info.f_frsize;
  return left > std::min<std::uint64_t>(1_GiB, all / 2);
}

void PageStore::removeLeft(const std::string& path) {
  PageStore left;
  left.fd_ = UniqueFd(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  struct stat ours {};
  struct stat there {};
  if (!left.fd_ || !left.lock(F_WRLCK, kOpenByte, false) || ::fstat(left.fd_.get(), &ours) != 0) return;
  if (::stat(path.c_str(), &there) == 0 && there.st_ino == ours.st_ino && there.st_dev == ours.st_dev)
    ::unlink(path.c_str());
}

std::uint32_t PageStore::count() const {
  return header_->count.load(std::memory_order_relaxed);
}

std::optional<std::uint32_t> PageStore::offer(Page page) {
  std::uint64_t hash = hashOf(page), tag = hash & ~kNumber;
  std::atomic<std::uint64_t>* empty = nullptr;
  for (unsigned probe = 0; probe < kMostProbes && !empty; ++probe) {
    std::atomic<std::uint64_t>& bucket = index_[(hash + probe) % kBuckets];
    std::uint64_t word = bucket.load(std::memory_order_acquire);
    if (word == 0) empty = &bucket;
    if (word == 0 || (word & ~kNumber) != tag) continue;
    auto number = static_cast<std::uint32_t>((word & kNumber) - 1);
    if (number >= kMostPages || std::memcmp(read(number).data(), page.data(), kPageSize) != 0) continue;
    return number;
  }
  std::atomic<std::uint64_t>& slot = seen_[hash % kSlots];
  std::uint64_t seen = slot.load(std::memory_order_relaxed);
  bool others = seen != 0 && (seen & ~kWho) == (hash & ~kWho) && (seen & kWho) != self_;
  slot.store((hash & ~kWho) | self_, std::memory_order_relaxed);
  return others && empty ? add(page, *empty, tag) : std::nullopt;
}

std::optional<std::uint32_t> PageStore::add(Page page, std::atomic<std::uint64_t>& bucket, std::uint64_t tag) {
  std::uint32_t number = count();
  if (number >= kMostPages || !hasRoom()) return std::nullopt;
  auto at = static_cast<off_t>(kTables + std::size_t{number} * kPageSize);
  if (::pwrite(fd_.get(), page.data(), kPageSize, at) != static_cast<ssize_t>(kPageSize)) return std::nullopt;
  header_->count.store(number + 1, std::memory_order_relaxed);
  bucket.store(tag | (number + 1), std::memory_order_release);
  return number;
}

}  // namespace lodge
