// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/error.h"
#include "base/file.h"
#include "base/units.h"

namespace lodge {

/// Is told when somebody other than a vCPU (a device, a loader) wrote guest RAM that holds translated code.
class CodeWriteObserver {
 public:
  virtual ~CodeWriteObserver() = default;
  /// [gpa, gpa+length) was written; it touches at least one page marked as code. Any thread.
  virtual void guestCodeWritten(Gpa gpa, std::uint64_t length) = 0;
};

/// The guest's RAM: one memfd, mapped three times at linear offsets.
///  - the device view: always readable and writable; devices and loaders use it, through read/write/span;
///  - the CPU view (cpuRw): where engines let guest stores land; an engine may write-protect pages of it;
///  - the read-only view (cpuRo): where engines let guest loads land for pages that the guest may not store to now.
///
/// Guest-physical layout: RAM of up to 3 GiB lies at 0; what is more continues at 4 GiB, so that [3 GiB, 4 GiB) is free
/// for PCI and chipset windows. `offset` below always means the offset in the memfd, in which RAM is contiguous. Owned
/// by the machine. All functions may be called from any thread; guest RAM itself is shared, racy memory.
class GuestMemory {
 public:
  static constexpr std::uint64_t kHoleStart = 3_GiB;
  static constexpr std::uint64_t kHoleEnd = 4_GiB;
  static constexpr std::uint64_t kNoOffset = ~std::uint64_t{0};

  /// `size`: bytes, a multiple of 4096, 1 MiB to 1 TiB. Errors: invalidArgument, outOfMemory, io.
  static Result<std::unique_ptr<GuestMemory>> create(std::uint64_t size);
  ~GuestMemory();
  GuestMemory(const GuestMemory&) = delete;
  GuestMemory& operator=(const GuestMemory&) = delete;

  std::uint64_t size() const { return size_; }
  std::uint64_t lowSize() const { return lowSize_; }           ///< bytes of RAM at 0
  std::uint64_t highSize() const { return size_ - lowSize_; }  ///< bytes of RAM at 4 GiB
  int fd() const { return fd_.get(); }

  /// Offset of the RAM byte at `gpa`, or kNoOffset where there is no RAM.
  std::uint64_t offsetOf(Gpa gpa) const {
    std::uint64_t a = raw(gpa);
    if (a < lowSize_) return a;
    if (a >= kHoleEnd && a - kHoleEnd < size_ - lowSize_) return a - kHoleEnd + lowSize_;
    return kNoOffset;
  }
  Gpa gpaOf(std::uint64_t offset) const { return Gpa{offset < lowSize_ ? offset : offset - lowSize_ + kHoleEnd}; }
  bool isRam(Gpa gpa) const { return offsetOf(gpa) != kNoOffset; }

  std::byte* cpuRw() const { return cpuRw_; }  ///< base of the CPU view, size() bytes
  std::byte* cpuRo() const { return cpuRo_; }  ///< base of the read-only view, size() bytes
  /// Base of the device view. Engines store through it to pages that they have write-protected in the CPU view, and
  /// check codePages() after the store.
  std::byte* deviceView() const { return device_; }

  /// Devices and loaders: copies, with `false` (and nothing promised of the destination) if any byte is outside RAM.
  [[nodiscard]] bool read(Gpa gpa, std::span<std::byte> to) const;
  [[nodiscard]] bool write(Gpa gpa, std::span<const std::byte> from);
  [[nodiscard]] bool fill(Gpa gpa, std::byte value, std::uint64_t length);
  template <class T>
  [[nodiscard]] bool readObject(Gpa gpa, T& to) const {
    return read(gpa, std::as_writable_bytes(std::span<T, 1>(&to, 1)));
  }
  template <class T>
  [[nodiscard]] bool writeObject(Gpa gpa, const T& from) {
    return write(gpa, std::as_bytes(std::span<const T, 1>(&from, 1)));
  }

  /// Zero-copy device access: host pointer to [gpa, gpa+length), or null if that is not one contiguous piece of RAM.
  /// After a device wrote through it (preadv, recv...) it calls `written`.
  std::byte* span(Gpa gpa, std::uint64_t length) const;
  /// A device changed [gpa, gpa+length) through span(): drops translated code there, and marks it dirty.
  void written(Gpa gpa, std::uint64_t length) {
    std::uint64_t first = offsetOf(gpa) >> 12;
    std::uint64_t last = (offsetOf(gpa) + length - 1) >> 12;
    for (std::uint64_t page = first; length != 0 && page <= last; ++page) {
      if (codePages_[page].load(std::memory_order_seq_cst) != 0) {
        notifyCodeWritten(gpa, length);
        return;
      }
    }
  }
  /// Gives whole pages in the range back to the host; they read as zero afterwards (balloon, free-page reporting).
  void discard(Gpa gpa, std::uint64_t length);
  /// Bytes of guest RAM that the host holds in memory now.
  std::uint64_t residentBytes() const;

  /// One byte a RAM page, by offset >> 12: nonzero while an engine holds translated code of that page.
  std::atomic<std::uint8_t>* codePages() const { return codePages_; }
  /// The engine that translates; null for none. Set before vCPUs run.
  void setCodeWriteObserver(CodeWriteObserver* observer) { observer_ = observer; }

 private:
  GuestMemory() = default;
  void notifyCodeWritten(Gpa gpa, std::uint64_t length);

  UniqueFd fd_;
  std::uint64_t size_ = 0;
  std::uint64_t lowSize_ = 0;
  std::byte* device_ = nullptr;
  std::byte* cpuRw_ = nullptr;
  std::byte* cpuRo_ = nullptr;
  std::atomic<std::uint8_t>* codePages_ = nullptr;
  CodeWriteObserver* observer_ = nullptr;
};

}  // namespace lodge
