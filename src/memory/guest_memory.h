// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
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
  /// [offset, offset+length) of the backing file was written; it touches at least one page marked as code. Any thread.
  virtual void guestCodeWritten(std::uint64_t offset, std::uint64_t length) = 0;
};

/// Where a saved machine's memory comes from, in pieces. Thread-safe.
class MemorySource {
 public:
  virtual ~MemorySource() = default;
  /// Of all pieces but the last, which may be shorter: a multiple of 4096.
  virtual std::size_t pieceBytes() const = 0;
  virtual bool isZero(std::size_t piece) const = 0;
  virtual Status load(std::size_t piece, std::span<std::byte> to) const = 0;
};
class LazyMemory;

/// The guest's RAM: one memfd, mapped three times at linear offsets.
///  - the device view: always readable and writable; devices and loaders use it, through read/write/span;
///  - the CPU view (cpuRw): where engines let guest stores land; an engine may write-protect pages of it;
///  - the read-only view (cpuRo): where engines let guest loads land for pages that the guest may not store to now.
///
/// Guest-physical layout: RAM of up to 3 GiB lies at 0; what is more continues at 4 GiB, so that [3 GiB, 4 GiB) is free
/// for PCI and chipset windows. `offset` below always means the offset in the memfd, in which RAM is contiguous.
///
/// A board with firmware has more in the same file behind RAM: read-only memory (firmware images), then video memory.
/// Both answer where a region or the shadow map says. The shadow map tells for each page of [640 KiB, 1 MiB) what is
/// read there and whether stores land in it; a store that does not is a device access. Regions and shadow pages may
/// change while vCPUs run; whoever changes them calls mapChanged(), after which vCPUs drop what they remember. Owned by
/// the machine. All functions may be called from any thread; guest RAM itself is shared, racy memory.
class GuestMemory {
 public:
  static constexpr std::uint64_t kHoleStart = 3_GiB;
  static constexpr std::uint64_t kHoleEnd = 4_GiB;
  static constexpr std::uint64_t kNoOffset = ~std::uint64_t{0};
  static constexpr std::uint64_t kShadowStart = 0xa0000, kShadowEnd = 0x100000;
  static constexpr unsigned kRegions = 6;

  /// What lies behind RAM in the file, in bytes: multiples of 4096, 256 MiB at most each.
  struct Extra {
    std::uint64_t rom = 0, video = 0;
    std::uint64_t lowLimit = kHoleStart;  ///< the most RAM that lies at 0
  };

  /// `size`: bytes, a multiple of 4096, 1 MiB to 1 TiB. Errors: invalidArgument, outOfMemory, io.
  static Result<std::unique_ptr<GuestMemory>> create(std::uint64_t size) { return create(size, Extra{}); }
  static Result<std::unique_ptr<GuestMemory>> create(std::uint64_t size, const Extra& extra);
  ~GuestMemory();
  GuestMemory(const GuestMemory&) = delete;
  GuestMemory& operator=(const GuestMemory&) = delete;

  std::uint64_t size() const { return size_; }
  std::uint64_t lowSize() const { return lowSize_; }                               ///< bytes of RAM at 0
  std::uint64_t highSize() const { return size_ - lowSize_; }                      ///< bytes of RAM at 4 GiB
  std::uint64_t backingSize() const { return size_ + extra_.rom + extra_.video; }  ///< RAM and what lies behind it
  std::uint64_t romOffset() const { return size_; }
  std::uint64_t videoOffset() const { return size_ + extra_.rom; }
  std::uint64_t videoSize() const { return extra_.video; }
  int fd() const { return fd_.get(); }

  /// Offset of the byte of memory that is read at `gpa`, or kNoOffset where there is none.
  std::uint64_t offsetOf(Gpa gpa) const {
    std::uint64_t a = raw(gpa);
    if (a < lowSize_) [[likely]] {
      if (a >= smramBase_.load(std::memory_order_relaxed)) [[unlikely]]
        return kNoOffset;
      if (!hasShadow_ || a - kShadowStart >= kShadowEnd - kShadowStart) [[likely]]
        return a;
      std::uint64_t entry = shadow_[(a - kShadowStart) >> 12].load(std::memory_order_relaxed);
      return entry == kNoOffset ? kNoOffset : (entry & ~kPageMask) + (a & kPageMask);
    }
    if (a >= kHoleEnd && a - kHoleEnd < size_ - lowSize_) return a - kHoleEnd + lowSize_;
    for (const Region& region : regions_) {
      std::uint64_t base = region.base.load(std::memory_order_acquire);
      if (base != kNoOffset && a - base < region.length) return region.offset + (a - base);
    }
    return kNoOffset;
  }
  /// Offset of the byte that a store to `gpa` changes, or kNoOffset where a store reaches no memory.
  std::uint64_t writableOffsetOf(Gpa gpa) const {
    std::uint64_t offset = offsetOf(gpa);
    if (offset == kNoOffset || isRomOffset(offset)) return kNoOffset;
    std::uint64_t inShadow = raw(gpa) - kShadowStart;
    if (!hasShadow_ || inShadow >= kShadowEnd - kShadowStart) return offset;
    return (shadow_[inShadow >> 12].load(std::memory_order_relaxed) & kShadowWritable) != 0 ? offset : kNoOffset;
  }
  bool isRomOffset(std::uint64_t offset) const { return offset - size_ < extra_.rom; }
  bool isVideoOffset(std::uint64_t offset) const { return offset - size_ - extra_.rom < extra_.video; }

  /// RAM at [base, base + length), the last below 4 GiB, is reached by CPUs in system management mode alone
  /// (Cpu::offsetOf()); length 0: there is none. Followed by mapChanged().
  void setSmram(Gpa base, std::uint64_t length) {
    smramBase_.store(length == 0 ? kNoOffset : raw(base), std::memory_order_relaxed);
  }
  /// Offset of the byte of system management RAM at `gpa`, or kNoOffset.
  std::uint64_t smramOffsetOf(Gpa gpa) const {
    return raw(gpa) < lowSize_ && raw(gpa) >= smramBase_.load(std::memory_order_relaxed) ? raw(gpa) : kNoOffset;
  }

  /// The bits of physical addresses that leave the CPUs: whoever walks page tables or accesses memory for a CPU clears
  /// the others. All ones but while the A20 gate is closed. Followed by mapChanged().
  std::uint64_t cpuAddressMask() const { return cpuAddressMask_.load(std::memory_order_relaxed); }
  void setCpuAddressMask(std::uint64_t mask) { cpuAddressMask_.store(mask, std::memory_order_relaxed); }

  /// From now on [640 KiB, 1 MiB) is what setShadowPage() says: at first RAM, as before.
  void useShadowMap();
  /// The page at `gpa` in [640 KiB, 1 MiB): reads give the page at `offset`, or are device accesses (kNoOffset). With
  /// `writable`, stores go there, too.
  void setShadowPage(Gpa gpa, std::uint64_t offset, bool writable);
  /// Region `index` answers at [base, base+length), in the hole below 4 GiB or above RAM, with the bytes at `offset`.
  /// Offset and length of an index are the same at each call.
  void mapRegion(unsigned index, Gpa base, std::uint64_t offset, std::uint64_t length);
  void unmapRegion(unsigned index);
  /// vCPUs must forget translations: the observer makes them.
  void mapChanged() {
    if (onMapChanged_) onMapChanged_();
  }
  void setMapObserver(std::function<void()> onMapChanged) { onMapChanged_ = std::move(onMapChanged); }

  /// The CPU or a device may have stored to the page of video memory at `offset`, and go on doing so unseen until
  /// mapChanged().
  void noteStore(std::uint64_t offset) {
    if (isVideoOffset(offset)) videoDirty_[(offset - videoOffset()) >> 12].store(1, std::memory_order_release);
  }
  /// Whether page number `page` of video memory was noted since the last call.
  bool takeVideoDirty(std::uint64_t page) {
    return videoDirty_[page].load(std::memory_order_relaxed) != 0 &&
           videoDirty_[page].exchange(0, std::memory_order_acq_rel) != 0;
  }
  Gpa gpaOf(std::uint64_t offset) const { return Gpa{offset < lowSize_ ? offset : offset - lowSize_ + kHoleEnd}; }
  bool isRam(Gpa gpa) const { return offsetOf(gpa) != kNoOffset; }

  std::byte* cpuRw() const { return cpuRw_; }  ///< base of the CPU view, backingSize() bytes
  std::byte* cpuRo() const { return cpuRo_; }  ///< base of the read-only view, backingSize() bytes
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

  /// Zero-copy device access: host pointer to [gpa, gpa+length), or null if that is not one contiguous piece of memory
  /// that can be written.
  /// After a device wrote through it (preadv, recv...) it calls `written`.
  std::byte* span(Gpa gpa, std::uint64_t length) const;
  /// A device changed [gpa, gpa+length) through span(): drops translated code there, and marks it dirty.
  void written(Gpa gpa, std::uint64_t length) {
    std::uint64_t offset = offsetOf(gpa);
    if (offset != kNoOffset) writtenAt(offset, length);
  }
  /// Same for [offset, offset+length).
  void writtenAt(std::uint64_t offset, std::uint64_t length) {
    std::uint64_t first = offset >> 12, last = (offset + length - 1) >> 12;
    bool code = false;
    for (std::uint64_t page = first; length != 0 && page <= last && page << 12 < backingSize(); ++page) {
      noteStore(page << 12);
      code = code || codePages_[page].load(std::memory_order_seq_cst) != 0;
    }
    if (code) notifyCodeWritten(offset, length);
  }
  /// All of memory, RAM and what is behind it, gets its contents from `source`: piece by piece as it is touched, and
  /// the rest in the background, where the host has userfaultfd; else before this returns. Before CPUs and devices run.
  /// `kernelTouches`: so may the host's kernel on its own (KVM), for which userfaultfd is a privilege.
  /// `onFailure` is called on another thread, before a CPU goes on, if a piece cannot be loaded then; it reads as
  /// zeroes. Errors: the source's, outOfMemory.
  Status load(std::unique_ptr<MemorySource> source, bool kernelTouches, std::function<void(const Error&)> onFailure);
  /// Whether pieces are still to be loaded. Any thread.
  bool isLoading() const { return loading_.load(std::memory_order_acquire); }
  /// Loads all that is left. Errors: the source's.
  Status finishLoading();
  /// Has all that is left be loaded, in the background.
  void hurryLoading();
  /// Whether what is left is SharedPages'.
  bool isSharing() const;
  /// Gives whole pages in the range back to the host; they read as zero afterwards (balloon, free-page reporting).
  void discard(Gpa gpa, std::uint64_t length);
  /// Bytes of guest RAM that the host holds in memory now.
  std::uint64_t residentBytes() const;

  /// One byte a page of the backing file, by offset >> 12: nonzero while an engine holds translated code of that page.
  std::atomic<std::uint8_t>* codePages() const { return codePages_; }
  /// The engine that translates; null for none. Set before vCPUs run.
  void setCodeWriteObserver(CodeWriteObserver* observer) { observer_ = observer; }

 private:
  GuestMemory();
  void notifyCodeWritten(std::uint64_t offset, std::uint64_t length);
  /// Whether [gpa, gpa+length) is writable and lies in one piece from `offset` on.
  bool contiguous(Gpa gpa, std::uint64_t offset, std::uint64_t length) const;

  static constexpr std::uint64_t kShadowWritable = 1;
  struct Region {
    std::atomic<std::uint64_t> base{kNoOffset};
    std::uint64_t offset = 0, length = 0;
  };

  UniqueFd fd_;
  Extra extra_;
  bool hasShadow_ = false;
  std::array<std::atomic<std::uint64_t>, (kShadowEnd - kShadowStart) / kPageSize> shadow_{};
  std::array<Region, kRegions> regions_;
  std::unique_ptr<std::atomic<std::uint8_t>[]> videoDirty_;
  std::function<void()> onMapChanged_;
  std::atomic<std::uint64_t> smramBase_{kNoOffset}, cpuAddressMask_{~std::uint64_t{0}};
  std::uint64_t size_ = 0;
  std::uint64_t lowSize_ = 0;
  std::byte* device_ = nullptr;
  std::byte* cpuRw_ = nullptr;
  std::byte* cpuRo_ = nullptr;
  std::atomic<bool> loading_{false};
  std::unique_ptr<MemorySource> source_;
  std::unique_ptr<LazyMemory> lazy_;
  std::atomic<std::uint8_t>* codePages_ = nullptr;
  CodeWriteObserver* observer_ = nullptr;
};

}  // namespace lodge
