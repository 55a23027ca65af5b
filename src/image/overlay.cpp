// SPDX-License-Identifier: Apache-2.0
#include "image/overlay.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <shared_mutex>
#include <vector>

#include "base/file.h"
#include "base/units.h"

namespace lodge {

namespace {

/// A run of granules that all come from the same place.
struct Run {
  std::uint64_t offset, length;
  bool own;
};

class Overlay : public Store {
 public:
  static constexpr std::uint64_t kGranule = 4096;

  Overlay(std::unique_ptr<Store> base, UniqueFd fd)
      : base_(std::move(base)), fd_(std::move(fd)), own_((base_->size() + kGranule - 1) / kGranule) {}

  std::uint64_t size() const override { return base_->size(); }
  int flush() override { return 0; }  // nothing of it outlives the process
  int discard(std::uint64_t, std::uint64_t) override { return 0; }

  int read(std::uint64_t offset, std::span<const iovec> to) override {
    std::shared_lock lock(mutex_);
    return forRuns(offset, to, [&](const Run& run, std::span<const iovec> part) {
      return run.own ? readFully(fd_.get(), run.offset, part, true) : base_->read(run.offset, part);
    });
  }

  int write(std::uint64_t offset, std::span<const iovec> from) override {
    std::uint64_t length = 0;
    for (const iovec& v : from) length += v.iov_len;
    if (length == 0) return 0;
    std::unique_lock lock(mutex_);
    if (int error = takeEdges(offset, length); error != 0) return error;
    if (int error = writeFully(fd_.get(), offset, from); error != 0) return error;
    for (std::uint64_t g = offset / kGranule; g <= (offset + length - 1) / kGranule; ++g) own_[g] = true;
    return 0;
  }

  int writeZeroes(std::uint64_t offset, std::uint64_t length, bool) override {
    static std::byte zeroes[65536];
    while (length != 0) {
      iovec v{zeroes, std::min<std::uint64_t>(length, sizeof zeroes)};
      if (int error = write(offset, {&v, 1}); error != 0) return error;
      offset += v.iov_len;
      length -= v.iov_len;
    }
    return 0;
  }

 private:
  /// Brings the granules that a write covers only in part over from the base.
  int takeEdges(std::uint64_t offset, std::uint64_t length) {
    std::uint64_t first = offset / kGranule, last = (offset + length - 1) / kGranule;
    if (offset % kGranule != 0) {
      if (int error = take(first); error != 0) return error;
    }
    return (offset + length) % kGranule != 0 ? take(last) : 0;
  }
  int take(std::uint64_t granule) {
    if (own_[granule]) return 0;
    std::byte buffer[kGranule];
    std::uint64_t at = granule * kGranule;
    iovec v{buffer, std::min(kGranule, size() - at)};
    if (int error = base_->read(at, {&v, 1}); error != 0) return error;
    if (int error = writeFully(fd_.get(), at, {&v, 1}); error != 0) return error;
    own_[granule] = true;
    return 0;
  }

  Run runAt(std::uint64_t offset, std::uint64_t limit) const {
    bool own = own_[offset / kGranule];
    std::uint64_t end = alignDown(offset, kGranule) + kGranule;
    while (end < offset + limit && own_[end / kGranule] == own) end += kGranule;
    return {offset, std::min(end - offset, limit), own};
  }

  template <class F>
  int forRuns(std::uint64_t offset, std::span<const iovec> vectors, F&& transfer) {
    std::uint64_t left = 0;
    for (const iovec& v : vectors) left += v.iov_len;
    std::size_t index = 0, inside = 0;
    while (left != 0) {
      Run run = runAt(offset, left);
      std::vector<iovec> part;
      for (std::uint64_t need = run.length; need != 0;) {
        const iovec& v = vectors[index];
        std::size_t n = std::min<std::uint64_t>(need, v.iov_len - inside);
        if (n != 0) part.push_back({static_cast<char*>(v.iov_base) + inside, n});
        inside += n;
        need -= n;
        if (inside == v.iov_len) ++index, inside = 0;
      }
      if (int error = transfer(run, std::span<const iovec>(part)); error != 0) return error;
      offset += run.length;
      left -= run.length;
    }
    return 0;
  }

  std::unique_ptr<Store> base_;
  UniqueFd fd_;
  std::shared_mutex mutex_;
  std::vector<bool> own_;
};

}  // namespace

Result<std::unique_ptr<Store>> makeOverlay(std::unique_ptr<Store> base) {
  const char* chosen = std::getenv("TMPDIR");
  std::string folder = chosen && *chosen ? chosen : "/var/tmp";
  UniqueFd fd(::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!fd) {
    std::string name = folder + "/lodge-overlay-XXXXXX";
    fd.reset(::mkostemp(name.data(), O_CLOEXEC));
    if (!fd)
      return Error::fromErrno(errno, "make a temporary file in '" + folder + "'")
          .withHint("set TMPDIR to a folder with room");
    ::unlink(name.c_str());
  }
  return std::unique_ptr<Store>(std::make_unique<Overlay>(std::move(base), std::move(fd)));
}

}  // namespace lodge
