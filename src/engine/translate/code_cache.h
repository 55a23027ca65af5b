// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "base/error.h"
#include "base/file.h"
#include "engine/translate/assembler.h"

namespace lodge::translate {

struct Translation;

/// The memory that translated code lies in: one memfd, mapped writable and (below 4 GiB) executable, shared by all
/// vCPUs of a machine. Three bump-allocated regions (code, out-of-line code, and the translations' own data), so that
/// one bound holds for everything that grows with translated code. There is no freeing but reset().
///
/// Changing functions: under the translator's lock. find() and contains(): any thread, and signal handlers.
class CodeCache {
 public:
  /// `bytes`: bound of everything together; 1 MiB to 1 GiB. `oneView`: anonymous
  /// memory, writable and executable at once (perf names code there only), as it is used, too, where the host has no
  /// executable memory files. Errors: outOfMemory, permissionDenied (no executable memory).
  static Result<std::unique_ptr<CodeCache>> create(std::uint64_t bytes, bool oneView = false);
  ~CodeCache();
  CodeCache(const CodeCache&) = delete;
  CodeCache& operator=(const CodeCache&) = delete;

  bool contains(std::uint64_t pc) const { return pc - run_ < codeBytes_; }
  std::uint64_t runBase() const { return run_; }
  std::uint64_t codeBytes() const { return codeBytes_; }

  /// The free ends of both code regions.
  Assembler hot() { return assemblerFor(hot_); }
  Assembler cold() { return assemblerFor(cold_); }
  /// Keeps what was assembled there.
  void commit(const Assembler& hot, const Assembler& cold);
  /// Data that lives until reset(); zeroed; 16-byte aligned. Null when full.
  void* allocate(std::uint64_t bytes);
  /// The number of such data, and back.
  std::uint32_t numberOf(const void* data) const {
    return static_cast<std::uint32_t>((static_cast<const std::uint8_t*>(data) - data_) / kDataAlignment);
  }
  void* dataAt(std::uint32_t number) const { return data_ + number * kDataAlignment; }
  /// Whether one more translation of the largest size fits for sure, with `otherBytes` of memory elsewhere counted in.
  bool hasRoom(std::uint64_t otherBytes = 0) const;

  /// Makes `translation` findable by the addresses of its code. Its code must have been committed just before.
  void publish(Translation* translation);
  /// The translation that the code at `pc` belongs to; null for the thunks and free space.
  Translation* find(std::uint64_t pc) const;

  /// Where to write so that the code at `pc` changes.
  std::uint8_t* writable(std::uint64_t pc) const { return write_ + (pc - run_); }
  /// Writes a rel32 at `pc` (4-aligned) so that the jump leads to `target`; atomic for CPUs that run it.
  void setRel32(std::uint64_t pc, std::uint64_t target);

  /// Address of a jump in the cache to `function`, in rel32 reach of all translated code.
  std::uint64_t thunk(const void* function);

  /// Forgets all code but thunks, and gives the memory back. No vCPU may be in translated code.
  void reset();
  std::uint64_t usedBytes() const;
  std::uint64_t hotBytes() const { return hot_.used; }
  std::uint64_t coldBytes() const { return cold_.used; }
  std::uint64_t dataBytes() const { return dataUsed_; }
  std::uint32_t translations() const { return count_.load(std::memory_order_acquire); }

  static constexpr std::uint64_t kDataAlignment = 16;
  static constexpr std::uint32_t kLargestTranslation = 64 * 1024;  ///< in either region

 private:
  CodeCache() = default;
  Status mapCode(bool oneView);
  struct Region {
    std::uint64_t start, capacity, used;  // offsets in the mapping
  };
  Assembler assemblerFor(const Region& r) {
    std::uint64_t at = r.start + r.used;
    return {write_ + at, run_ + at, static_cast<std::uint32_t>(r.capacity - r.used)};
  }

  std::uint64_t bytes_ = 0;
  UniqueFd fd_;
  std::uint8_t* write_ = nullptr;
  std::uint64_t run_ = 0;
  std::uint64_t codeBytes_ = 0;
  Region thunks_{}, hot_{}, cold_{};
  std::uint8_t* data_ = nullptr;
  std::uint64_t dataBytes_ = 0;
  std::uint64_t dataUsed_ = 0;
  /// All translations in the order of both code regions.
  Translation** index_ = nullptr;
  std::uint32_t indexCapacity_ = 0;
  std::atomic<std::uint32_t> count_{0};
};

}  // namespace lodge::translate
