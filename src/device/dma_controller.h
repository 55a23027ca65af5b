// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <span>

#include "memory/guest_memory.h"
#include "memory/io_bus.h"
#include "state/archive.h"

namespace lodge {

/// The PC's two 8237A DMA controllers (Intel 8237A data sheet) with their page registers: channels 0 to 3 move bytes,
/// 5 to 7 words, 4 is the cascade. A device asks for a whole transfer at once; transfers between memory and memory are
/// not there, as on a PC. Any thread.
class DmaController {
 public:
  static constexpr std::uint64_t kFirstPort = 0x00, kFirstBytes = 16;
  static constexpr std::uint64_t kSecondPort = 0xc0, kSecondBytes = 32;
  static constexpr std::uint64_t kPagePort = 0x80, kPageBytes = 16;

  explicit DmaController(GuestMemory& memory) : memory_(memory) {}

  /// Ports; the page registers' range leaves out what others have. Errors: alreadyExists.
  Status plugPorts(IoBus& ports);
  void reset();
  void transfer(state::Archive& a);

  enum class Direction : std::uint8_t { toMemory, fromMemory };
  struct Moved {
    std::size_t bytes = 0;
    bool ended = false;  ///< terminal count: the channel has moved all that it was to
  };
  /// Moves up to data.size() bytes on `channel` (0 to 3). A channel that is masked, disabled or programmed for the
  /// other direction moves nothing; one that verifies counts, and moves nothing (fromMemory gives zeroes). Memory that
  /// is not there reads as ones.
  Moved transfer(unsigned channel, std::span<std::uint8_t> data, Direction direction);
  /// How many bytes the channel will move until its terminal count; 0: none, as of transfer().
  std::size_t remaining(unsigned channel, Direction direction) const;

 private:
  struct Channel {
    std::uint16_t baseAddress = 0, baseCount = 0, address = 0, count = 0;
    std::uint8_t mode = 0, page = 0;
  };
  /// One 8237A. `step`: how far apart its registers are, and how many bytes a transfer has.
  struct Chip : IoDevice {
    Chip(DmaController& dma, unsigned bytes) : owner(&dma), step(bytes) {}
    std::uint64_t read(std::uint64_t offset, unsigned size) override;
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
    std::uint8_t readLocked(unsigned reg);
    void writeLocked(unsigned reg, std::uint8_t value);
    void clearLocked();

    DmaController* owner;
    unsigned step;
    std::array<Channel, 4> channels{};
    std::uint8_t command = 0, status = 0, masks = 0xf;
    bool high = false;  ///< the byte pointer flip-flop
  };
  struct Pages : IoDevice {
    explicit Pages(DmaController& dma) : owner(&dma) {}
    std::uint64_t read(std::uint64_t offset, unsigned size) override;
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
    DmaController* owner;
    std::array<std::uint8_t, kPageBytes> values{};
  };

  bool readyLocked(unsigned channel, Direction direction) const;
  void moveLocked(Channel& channel, std::span<std::uint8_t> data, Direction direction);

  GuestMemory& memory_;
  mutable std::mutex mutex_;
  std::array<Chip, 2> chips_{Chip{*this, 1}, Chip{*this, 2}};
  Pages pages_{*this};
};

}  // namespace lodge
