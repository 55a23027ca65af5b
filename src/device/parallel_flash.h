// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <vector>

#include "memory/guest_memory.h"
#include "memory/io_bus.h"
#include "state/archive.h"

namespace lodge {

/// A NOR flash chip on an 8-bit bus with Intel's command set (Intel StrataFlash J3 data sheet, 290667; CFI: JEDEC
/// JESD68.01), as the boards that firmware for virtual machines knows have it: blocks of 4 KiB, each byte programmed by
/// itself or in a buffer. The contents lie in GuestMemory's read-only part and are read there directly, until a command
/// makes reads answer something else; the region goes from the memory map for that time and the reads come here.
///
/// One thing differs from the data sheet: after Clear Status the status register reads 0 until the next operation, its
/// ready bit too. Firmware tells flash from RAM and ROM by that.
///
/// Any thread.
class ParallelFlash : public IoDevice {
 public:
  static constexpr std::uint64_t kBlock = 4096;
  static constexpr unsigned kBufferBytes = 256;

  struct Setup {
    GuestMemory& memory;
    unsigned region;       ///< GuestMemory's region that the chip's contents take
    Gpa base;              ///< where it answers
    std::uint64_t offset;  ///< of the contents in GuestMemory's file
    std::uint64_t bytes;   ///< a multiple of kBlock
    bool readOnly;         ///< write-protected: program and erase fail
    /// The contents changed: a place where they stay. May be empty.
    std::function<void(std::uint64_t offset, std::span<const std::byte> bytes)> store;
  };
  explicit ParallelFlash(Setup setup);

  std::uint64_t read(std::uint64_t offset, unsigned size) override;
  void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
  std::uint64_t bytes() const { return setup_.bytes; }
  /// The chip's reset input: reads give the contents.
  void reset();
  /// Saves or loads what the chip is doing; its contents are part of memory.
  void transfer(state::Archive& a);

  struct State {
    enum class Reads : std::uint8_t { array, status, identifier, query };
    enum class Expects : std::uint8_t { command, data, eraseConfirm, bufferCount, bufferData, bufferConfirm, lock };
    Reads reads = Reads::array;
    Expects expects = Expects::command;
    std::uint8_t status = 0x80;
    std::uint64_t bufferStart = 0;
    unsigned bufferLeft = 0;
    std::vector<std::pair<std::uint64_t, std::uint8_t>> buffer;
  };

 private:
  std::uint8_t readByteLocked(std::uint64_t offset) const;
  void commandLocked(std::uint64_t offset, std::uint8_t command);
  void continueLocked(std::uint64_t offset, unsigned size, std::uint64_t value);
  void takeBufferLocked(std::uint64_t offset, unsigned size, std::uint64_t value);
  void programLocked(std::uint64_t offset, std::uint8_t value);
  void eraseLocked(std::uint64_t offset);
  void endLocked(std::uint8_t errors);
  void placeLocked();
  std::uint8_t* contents() const { return reinterpret_cast<std::uint8_t*>(setup_.memory.deviceView() + setup_.offset); }
  void changedLocked(std::uint64_t offset, std::uint64_t length);

  Setup setup_;
  std::array<std::uint8_t, 0x40> query_{};
  std::mutex mutex_;
  State state_;
  bool mapped_ = false;
};

}  // namespace lodge
