// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/error.h"
#include "base/file.h"
#include "base/units.h"

namespace lodge {

/// From now on guests of this process share pages by the store at `path` (--share-pages). Before a machine is made.
void shareGuestPages(std::string path);
/// Empty: they do not.
const std::string& sharedPagesPath();

/// Pages that memory of several machines of one user holds, once for all of them: a file that the machines' processes
/// have in common. A page comes into it when a second machine is seen to hold it, never changes, and goes with the
/// file, which the last process that has it open removes.
///
/// The file: a header page; the index, open addressing by hash; what was seen lately, one word a slot, the newest
/// wins; the pages. Whoever adds holds a lock on it (F_OFD_SETLK, fcntl(2)); to find takes none. One object a machine;
/// one thread at a time, but read(), which is anybody's.
class PageStore {
 public:
  static constexpr std::uint32_t kMostPages = 1u << 18;  ///< 1 GiB

  /// Opens the file, or makes it (mode 0600). Errors: permissionDenied (somebody else's, or open to others),
  /// unsupported (in use by another version), io.
  static Result<std::unique_ptr<PageStore>> open(const std::string& path);
  ~PageStore();
  /// Removes the file that the last process left which had it, if nobody has it: that was killed.
  static void removeLeft(const std::string& path);
  PageStore(const PageStore&) = delete;
  PageStore& operator=(const PageStore&) = delete;

  using Page = std::span<const std::byte, kPageSize>;
  static std::uint64_t hashOf(Page page);

  /// Until end(), offer() may add. False: another process adds just now. To begin again changes nothing.
  bool begin();
  void end();
  /// The number of the page that equals `page`, which is added if another machine has offered it, too; none else.
  /// Between begin() and end().
  std::optional<std::uint32_t> offer(Page page);
  /// The page of that number, which offer() gave.
  Page read(std::uint32_t number) const { return Page(pages_ + std::size_t{number} * kPageSize, kPageSize); }
  std::uint32_t count() const;

 private:
  struct Header;
  PageStore() = default;
  Status openFile(const std::string& path);
  Status make();
  Status map();
  bool lock(int type, int byte, bool waits) const;
  bool hasRoom() const;
  std::optional<std::uint32_t> add(Page page, std::atomic<std::uint64_t>& bucket, std::uint64_t tag);

  std::string path_;
  UniqueFd fd_;
  Header* header_ = nullptr;
  std::atomic<std::uint64_t>* index_ = nullptr;
  std::atomic<std::uint64_t>* seen_ = nullptr;
  const std::byte* pages_ = nullptr;
  std::uint16_t self_ = 0;  ///< tells this machine from others
};

}  // namespace lodge
