// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "device/dma_controller.h"
#include "device/interrupt.h"
#include "image/disk.h"
#include "state/archive.h"
#include "storage/floppy_format.h"

namespace lodge {

/// The PC's floppy controller, an Intel 82077AA (its data sheet, AT mode), with up to two drives. Data goes by DMA
/// channel 2 or, if SPECIFY says so, by the FIFO. Commands are done at once but for the disk's own time. Scan commands
/// are not there. Any thread.
class FloppyController {
 public:
  static constexpr std::uint64_t kPort = 0x3f0, kBytes = 6;  ///< 0x3f6 is the IDE's
  static constexpr std::uint64_t kInputPort = 0x3f7;
  static constexpr unsigned kDrives = 2, kDmaChannel = 2;

  FloppyController(DmaController& dma, InterruptLine& irq6) : dma_(dma), irq_(irq6) {}
  ~FloppyController();
  FloppyController(const FloppyController&) = delete;
  FloppyController& operator=(const FloppyController&) = delete;

  /// A drive of a type of CMOS register 0x10 with a medium, or without one (null). Before the machine runs. The medium
  /// must have a floppy disk's size.
  void attach(unsigned drive, std::uint8_t type, std::shared_ptr<Disk> medium);
  std::uint8_t driveType(unsigned drive) const { return drives_.at(drive).type; }
  /// Puts another medium into a drive, or none. False: it has no floppy disk's size. A request that is under way ends
  /// on the old one.
  bool change(unsigned drive, std::shared_ptr<Disk> medium);
  /// Errors: alreadyExists.
  Status plugPorts(IoBus& ports);
  void reset();
  /// Returns when no request is under way, after Disk::settle(): 0, or a positive errno value. While no vCPU runs.
  int quiesce();
  /// Whether no request is under way that reads or writes guest memory. Waits for nothing.
  bool isQuiet();
  /// Saves or loads it, after quiesce().
  void transfer(state::Archive& a);

 private:
  static constexpr unsigned kSectorBytes = 512;
  static constexpr std::uint8_t kMaxCylinder = 85;
  static constexpr std::uint8_t kGateBit = 0x08;              ///< of the digital output register: interrupts and DMA
  static constexpr std::size_t kMostBuffer = 2 * 256 * 512u;  ///< more than two tracks have
  struct Drive {
    std::uint8_t type = 0;  ///< 0: there is none
    std::shared_ptr<Disk> medium{};
    std::optional<FloppyFormat> format{};
    std::uint8_t cylinder = 0;
    bool changed = true;  ///< the medium was changed since the last step
  };
  /// Where a sector says that it is: cylinder, head, number, size.
  struct Id {
    std::uint8_t c, h, r, n;
  };
  enum class Phase : std::uint8_t { command, execution, result };
  enum class Transfer : std::uint8_t { none, read, write, verify, format };
  struct Registers : IoDevice {
    explicit Registers(FloppyController& controller) : owner(&controller) {}
    std::uint64_t read(std::uint64_t offset, unsigned size) override;
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
    FloppyController* owner;
  };
  struct InputRegister : IoDevice {
    explicit InputRegister(FloppyController& controller) : owner(&controller) {}
    std::uint64_t read(std::uint64_t offset, unsigned size) override;
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
    FloppyController* owner;
  };
  /// What to do when the mutex is released: disk requests may end before they return.
  using Work = std::function<void()>;

  // floppy_controller.cpp: registers, phases, commands without data
  std::uint8_t readLocked(unsigned offset);
  Work writeLocked(unsigned offset, std::uint8_t value);
  void resetLocked(bool hard);
  void raiseLocked();
  void lowerLocked();
  Work commandByteLocked(std::uint8_t value);
  Work beginLocked();
  void resultLocked(std::initializer_list<std::uint8_t> bytes, bool interrupts);
  void seekLocked(unsigned drive, int cylinder, bool recalibrate);
  void senseInterruptLocked();
  Drive& selectedLocked() { return drives_[command_[1] & 1]; }
  bool presentLocked() const { return (command_[1] & 3) < kDrives && drives_[command_[1] & 1].type != 0; }
  /// Of the command whose first byte is there; 0: none.
  unsigned commandLengthLocked() const;
  // floppy_state.cpp
  bool transferFitsLocked() const;
  // floppy_transfer.cpp
  Work beginTransferLocked();
  Work beginFormatLocked();
  struct Trouble {
    std::uint8_t status1 = 0, status2 = 0;
  };
  Trouble lookForLocked(const Id& id);
  std::size_t runLocked() const;
  Work diskLocked();
  Work formatTrackLocked();
  void diskDone(std::uint64_t generation, int error);
  void readDoneLocked();
  void endLocked(Trouble trouble);
  std::uint8_t fifoReadLocked();
  Work fifoWriteLocked(std::uint8_t value);
  void readIdLocked();
  void advanceLocked(std::size_t sectors);

  DmaController& dma_;
  InterruptLine& irq_;
  std::mutex mutex_;
  std::condition_variable landed_;
  unsigned inFlight_ = 0;  ///< requests to disks
  Registers registers_{*this};
  InputRegister input_{*this};
  std::array<Drive, kDrives> drives_;
  std::uint8_t dor_ = 0, rate_ = 0, tapeDrive_ = 0;
  std::array<std::uint8_t, 2> specify_{};
  std::array<std::uint8_t, 3> configure_{};
  std::uint8_t perpendicular_ = 0, lastSector_ = 0;
  bool lock_ = false, raised_ = false;
  Phase phase_ = Phase::command;
  std::vector<std::uint8_t> command_, result_;
  std::size_t resultAt_ = 0;
  unsigned resetsToSense_ = 0;                         ///< drives whose status after a reset was not asked for
  std::optional<std::array<std::uint8_t, 2>> sought_;  ///< ST0 and cylinder of a seek that was not asked for

  // the transfer under way
  Transfer transfer_ = Transfer::none;
  bool byFifo_ = false;
  std::uint8_t mark_ = 0;  ///< status 2 of a transfer that goes well
  Id id_{};
  std::uint64_t generation_ = 0;  ///< requests of before a reset are not waited for
  std::shared_ptr<std::vector<std::uint8_t>> buffer_;
  std::size_t bufferAt_ = 0;
  std::uint64_t offset_ = 0;  ///< of the buffer on the disk
  std::size_t wanted_ = 0;    ///< bytes that the DMA controller would have moved
};

}  // namespace lodge
