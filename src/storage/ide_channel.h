// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>

#include "device/interrupt.h"
#include "memory/guest_memory.h"
#include "memory/io_bus.h"
#include "state/archive.h"
#include "storage/ide_drive.h"

namespace lodge {

/// An IDE channel: its command block (8 ports), its control port, its bus master registers (8 ports; "Programming
/// Interface for Bus Master IDE Controller" 1.0), and up to two drives. Register accesses come on vCPU threads, disk
/// requests end on any thread.
class IdeChannel {
 public:
  IdeChannel(GuestMemory& memory, InterruptLine& interrupt);
  ~IdeChannel();

  /// `unit` 0 or 1, before the machine runs.
  void attach(unsigned unit, std::unique_ptr<IdeDrive> drive);
  bool has(unsigned unit) const { return drives_.at(unit) != nullptr; }
  IoDevice& commandPorts() { return commandPorts_; }
  IoDevice& controlPort() { return controlPort_; }
  std::uint64_t readBusMaster(std::uint64_t offset, unsigned size);
  void writeBusMaster(std::uint64_t offset, unsigned size, std::uint64_t value);
  void reset();
  /// Returns when no disk request is under way, after Disk::settle(): 0, or a positive errno value. While no vCPU runs.
  int quiesce();
  /// Whether no request is under way that reads or writes guest memory. Waits for nothing.
  bool isQuiet();
  /// Saves or loads registers and drives, after quiesce().
  void transfer(state::Archive& a);
  /// Calls `change` on the drive while no register access or request is under way with it.
  template <class Change>
  auto withDrive(unsigned unit, Change change) {
    std::lock_guard lock(mutex_);
    return change(*drives_.at(unit));
  }

 private:
  struct CommandPorts : IoDevice {
    explicit CommandPorts(IdeChannel& o) : owner(o) {}
    std::uint64_t read(std::uint64_t offset, unsigned size) override { return owner.readCommand(offset, size); }
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override {
      owner.writeCommand(offset, size, value);
    }
    IdeChannel& owner;
  };
  struct ControlPort : IoDevice {
    explicit ControlPort(IdeChannel& o) : owner(o) {}
    std::uint64_t read(std::uint64_t, unsigned) override { return owner.readAlternateStatus(); }
    void write(std::uint64_t, unsigned, std::uint64_t value) override {
      owner.writeControl(static_cast<std::uint8_t>(value));
    }
    IdeChannel& owner;
  };
  struct BusMaster {
    std::uint8_t command = 0, status = 0;
    std::uint32_t table = 0;
    // Where in the table the transfer is.
    std::uint32_t next = 0, address = 0, left = 0;
    bool last = false;
  };

  std::uint64_t readCommand(std::uint64_t offset, unsigned size);
  void writeCommand(std::uint64_t offset, unsigned size, std::uint64_t value);
  std::uint8_t readAlternateStatus();
  void writeControl(std::uint8_t value);
  std::uint8_t readRegisterLocked(unsigned offset);
  void writeRegisterLocked(unsigned offset, std::uint8_t value);
  std::uint64_t readDataLocked(unsigned size);
  void writeDataLocked(unsigned size, std::uint64_t value);
  void commandLocked(std::uint8_t code);
  void resetDrivesLocked();
  void setLineLocked(bool level);
  IdeDrive* selectedLocked() { return drives_[selected_].get(); }

  /// Follows what the drive asks for; what it wants of the disk is to be started with start() without the mutex.
  IdeDrive::Job settleLocked();
  void start(IdeDrive::Job job);
  void ended(int error, unsigned generation);
  bool transferLocked(IdeDrive& drive, bool toGuest);
  bool nextRegionLocked();

  GuestMemory& memory_;
  InterruptLine& interrupt_;
  CommandPorts commandPorts_{*this};
  ControlPort controlPort_{*this};
  std::mutex mutex_;
  std::array<std::unique_ptr<IdeDrive>, 2> drives_;
  unsigned selected_ = 0, working_ = 0;  ///< the drive of the device register; and of the running command
  std::uint8_t control_ = 0;
  bool line_ = false;
  std::size_t at_ = 0;  ///< in the drive's data
  BusMaster master_;
  unsigned generation_ = 0;  ///< requests begun before a reset do not count when they end
  unsigned inFlight_ = 0;
  std::condition_variable landed_;
};

}  // namespace lodge
