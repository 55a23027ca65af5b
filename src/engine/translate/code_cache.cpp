// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/code_cache.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "base/memory_file.h"
#include "base/units.h"
#include "engine/translate/translation.h"

namespace lodge::translate {

namespace {
constexpr std::uint64_t kThunkBytes = kPageSize;
constexpr std::uint64_t kThunkSize = 16;
constexpr std::uint64_t kBytesPerTranslation = 128;  // fewer than any translation takes, for the index's size

void* mapNoReserve(std::uint64_t bytes) {
  void* p = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return nullptr;
  ::madvise(p, bytes, MADV_DONTDUMP);
  ::madvise(p, bytes, MADV_DONTFORK);  // no executor's business
  return p;
}

/// Maps the file executable below 4 GiB, so that 32 bits name a code address. Without a file (-1): anonymous memory,
/// writable, too.
void* mapLow(std::uint64_t bytes, int fd) {
  constexpr std::uint64_t step = 64_MiB;
  void* p = MAP_FAILED;
  for (std::uint64_t at = 256_MiB; at + bytes <= 4_GiB; at += step) {
    int protection = PROT_READ | PROT_EXEC | (fd < 0 ? PROT_WRITE : 0);
    int kind = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    p = ::mmap(reinterpret_cast<void*>(at), bytes, protection, kind | MAP_NORESERVE | MAP_FIXED_NOREPLACE, fd, 0);
    if (p != MAP_FAILED || errno != EEXIST) break;
  }
  return p;
}
}  // namespace

Status CodeCache::mapCode(bool oneView) {
  void* run = MAP_FAILED;
  if (!oneView) fd_ = makeMemoryFile("lodge-code");
  if (fd_) {
    if (::ftruncate(fd_.get(), static_cast<off_t>(codeBytes_)) != 0)
      return Error::fromErrno(errno, "size the code cache");
    void* write = ::mmap(nullptr, codeBytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd_.get(), 0);
    if (write == MAP_FAILED) return Error::fromErrno(errno, "map the code cache");
    write_ = static_cast<std::uint8_t*>(write);
    run = mapLow(codeBytes_, fd_.get());
    if (run == MAP_FAILED) {
      ::munmap(write, codeBytes_);
      write_ = nullptr;
      fd_.reset();
    }
  }
  if (run == MAP_FAILED) run = mapLow(codeBytes_, -1);
  if (run == MAP_FAILED) {
    return Error::fromErrno(errno, "map the code cache executable")
        .withHint(
            "the translate engine needs executable memory; a security policy (SELinux execmem, noexec tmpfs) forbids "
            "it here");
  }
  run_ = reinterpret_cast<std::uint64_t>(run);
  if (!write_) write_ = static_cast<std::uint8_t*>(run);
  ::madvise(write_, codeBytes_, MADV_DONTDUMP);
  return {};
}

Result<std::unique_ptr<CodeCache>> CodeCache::create(std::uint64_t bytes, bool oneView) {
  if (bytes < 1_MiB || bytes > 1_GiB) {
    return Error(ErrorKind::invalidArgument, "code cache of " + std::to_string(bytes) + " bytes")
        .withHint("give a size from 1M to 1G");
  }
  auto cache = std::unique_ptr<CodeCache>(new CodeCache());
  cache->bytes_ = bytes;
  // Address space, not memory: hasRoom() bounds the sum. A Linux guest uses 3 : 1.
  std::uint64_t hot = alignDown(bytes * 14 / 16, kPageSize);
  std::uint64_t cold = alignDown(bytes * 8 / 16, kPageSize);
  cache->thunks_ = {0, kThunkBytes, 0};
  cache->hot_ = {kThunkBytes, hot, 0};
  cache->cold_ = {kThunkBytes + hot, cold, 0};
  cache->codeBytes_ = kThunkBytes + hot + cold;
  cache->dataBytes_ = alignDown(bytes, kPageSize);

  if (Status mapped = cache->mapCode(oneView); !mapped) return std::move(mapped).error();

  cache->indexCapacity_ = static_cast<std::uint32_t>(bytes / kBytesPerTranslation);
  cache->data_ = static_cast<std::uint8_t*>(mapNoReserve(cache->dataBytes_));
  cache->index_ = static_cast<Translation**>(mapNoReserve(cache->indexCapacity_ * sizeof(Translation*)));
  if (!cache->data_ || !cache->index_) return Error::fromErrno(errno, "map the code cache's tables");
  return cache;
}

CodeCache::~CodeCache() {
  if (write_) ::munmap(write_, codeBytes_);
  if (fd_ && run_ != 0) ::munmap(reinterpret_cast<void*>(run_), codeBytes_);
  if (data_) ::munmap(data_, dataBytes_);
  if (index_) ::munmap(static_cast<void*>(index_), indexCapacity_ * sizeof(Translation*));
}

void CodeCache::commit(const Assembler& hot, const Assembler& cold) {
  hot_.used = alignUp(hot_.used + hot.size(), 16);
  cold_.used = alignUp(cold_.used + cold.size(), 16);
}

void* CodeCache::allocate(std::uint64_t bytes) {
  std::uint64_t size = alignUp(bytes, 16);
  if (dataBytes_ - dataUsed_ < size) return nullptr;
  void* p = data_ + dataUsed_;
  dataUsed_ += size;
  return p;
}

bool CodeCache::hasRoom(std::uint64_t otherBytes) const {
  // A fifth is left for what grows along and is not counted: code maps, soft TLBs.
  return usedBytes() + otherBytes + 3 * std::uint64_t{kLargestTranslation} < bytes_ - bytes_ / 5 &&
         hot_.capacity - hot_.used > kLargestTranslation && cold_.capacity - cold_.used > kLargestTranslation &&
         dataBytes_ - dataUsed_ > kLargestTranslation && count_.load(std::memory_order_relaxed) + 1 < indexCapacity_;
}

void CodeCache::publish(Translation* translation) {
  std::uint32_t n = count_.load(std::memory_order_relaxed);
  index_[n] = translation;
  count_.store(n + 1, std::memory_order_release);
}

Translation* CodeCache::find(std::uint64_t pc) const {
  if (!contains(pc)) return nullptr;
  std::uint32_t low = 0;
  std::uint32_t high = count_.load(std::memory_order_acquire);
  bool inCold = pc - run_ >= cold_.start;
  while (low < high) {
    std::uint32_t middle = low + (high - low) / 2;
    const Translation* t = index_[middle];
    if ((inCold ? t->cold : t->hot) <= pc) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == 0) return nullptr;
  // Several translations may have no cold code; then they share a start with the next one, which is the one found.
  Translation* t = index_[low - 1];
  std::uint64_t start = inCold ? t->cold : t->hot;
  return pc - start < (inCold ? t->coldSize : t->hotSize) ? t : nullptr;
}

void CodeCache::setRel32(std::uint64_t pc, std::uint64_t target) {
  auto* at = reinterpret_cast<std::uint32_t*>(writable(pc));
  __atomic_store_n(at, static_cast<std::uint32_t>(target - (pc + 4)), __ATOMIC_RELEASE);
}

std::uint64_t CodeCache::thunk(const void* function) {
  std::uint64_t at = thunks_.start + thunks_.used;
  if (thunks_.used + kThunkSize > thunks_.capacity) return 0;
  Assembler a(write_ + at, run_ + at, kThunkSize);
  a.byte(0xff);  // JMP [RIP+2]
  a.byte(0x25);
  a.word32(2);
  a.byte(0xcc);
  a.byte(0xcc);
  a.word64(reinterpret_cast<std::uint64_t>(function));
  thunks_.used += kThunkSize;
  return run_ + at;
}

void CodeCache::reset() {
  count_.store(0, std::memory_order_release);
  // Punching holes frees the pages of both views.
  if (!fd_) {
    ::madvise(write_ + hot_.start, codeBytes_ - hot_.start, MADV_DONTNEED);
  } else
    ::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(hot_.start),
                static_cast<off_t>(codeBytes_ - hot_.start));
  ::madvise(data_, dataBytes_, MADV_DONTNEED);
  ::madvise(static_cast<void*>(index_), indexCapacity_ * sizeof(Translation*), MADV_DONTNEED);
  hot_.used = cold_.used = dataUsed_ = 0;
}

std::uint64_t CodeCache::usedBytes() const {
  return hot_.used + cold_.used + dataUsed_ + count_.load(std::memory_order_relaxed) * 8;
}

}  // namespace lodge::translate
