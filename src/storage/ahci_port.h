// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>

#include "image/disk.h"
#include "memory/guest_memory.h"
#include "storage/guest_buffers.h"
#include "storage/ide_drive.h"

namespace lodge {

/// A port of an AHCI controller (AHCI 1.3.1, chapters 3.3 and 4) and the SATA device behind it: command lists, received
/// FISes, native command queuing for disks. Commands that are not queued go to an IdeDrive, one at a time. Register
/// accesses come on vCPU threads, disk requests end on any thread.
class AhciPort {
 public:
  static constexpr unsigned kBytes = 0x80;

  /// `onInterrupt`: pending() may have changed; called without the port's mutex.
  AhciPort(GuestMemory& memory, std::function<void()> onInterrupt);
  ~AhciPort();

  /// Before the machine runs. `disk`: what queued commands work on; null for a packet device.
  void attach(std::unique_ptr<IdeDrive> drive, std::shared_ptr<Disk> disk);
  bool has() const { return drive_ != nullptr; }
  /// `offset`: a register's, from 0 to 0x7c, a multiple of 4.
  std::uint32_t read(unsigned offset);
  void write(unsigned offset, std::uint32_t value);
  /// Whether an interrupt is asserted that its mask lets through.
  bool pending() const { return pending_; }
  /// Returns when no request is under way, after Disk::settle(): 0, or a positive errno value. While no vCPU runs.
  int quiesce();
  /// Whether no request is under way that reads or writes guest memory. Waits for nothing.
  bool isQuiet();
  /// Saves or loads it, after quiesce().
  void transfer(state::Archive& a);
  /// Back to power-up; no request is under way afterwards.
  void reset();
  template <class Change>
  auto withDrive(Change change) {
    std::lock_guard lock(mutex_);
    return change(*drive_);
  }

 private:
  struct Registers {
    std::uint64_t commandList = 0, received = 0;
    std::uint32_t is = 0, ie = 0, cmd = 0, tfd = 0, signature = 0, sctl = 0, serr = 0, sact = 0, ci = 0;
  };
  /// The command that the drive works on.
  struct Current {
    unsigned slot;
    bool write;
    std::uint64_t table;
    std::uint64_t header;
    std::shared_ptr<GuestBuffers> buffers;
    std::uint64_t moved = 0;
    bool packetDue = false;
    bool working = false;  ///< a request to the disk is under way
  };
  struct Slot {
    std::uint64_t header, table;
    std::uint32_t flags;
    std::array<std::uint8_t, 20> fis;
  };
  using Work = std::function<void()>;

  // ahci_port.cpp
  void writeCommandLocked(std::uint32_t value);
  void writeControl(std::unique_lock<std::mutex>& lock, std::uint32_t value);
  void stopLocked();
  void linkUpLocked();
  void updatePendingLocked();
  void raiseLocked(std::uint32_t bits);
  void storeFisLocked(unsigned offset, std::span<const std::uint8_t> fis);
  void sendRegistersLocked(bool interrupt);
  void sendPioSetupLocked(std::size_t bytes, bool toHost);
  void sendDeviceBitsLocked(std::uint32_t done, std::uint8_t status, std::uint8_t error);
  void fatalLocked(std::uint32_t bits);
  // ahci_commands.cpp
  void advance();
  Work nextLocked();
  std::optional<Slot> fetchLocked(unsigned number);
  Work beginLocked(unsigned number, const Slot& slot);
  Work queuedLocked(unsigned number, const Slot& slot);
  Work readLogLocked(unsigned number, const Slot& slot);
  std::shared_ptr<GuestBuffers> mapTableLocked(const Slot& slot);
  void controlLocked(unsigned number, const Slot& slot);
  Work followLocked();
  bool moveLocked(bool toGuest);
  void finishLocked();
  Work jobLocked(IdeDrive::Job job);
  void queuedDone(unsigned tag, bool write, int error, unsigned generation, const GuestBuffers& buffers);

  GuestMemory& memory_;
  std::function<void()> onInterrupt_;
  std::mutex mutex_;
  std::condition_variable landed_;
  std::unique_ptr<IdeDrive> drive_;
  std::shared_ptr<Disk> disk_;
  Registers regs_;
  std::optional<Current> current_;
  std::atomic<bool> pending_{false};
  bool serving_ = false;    ///< a thread is in advance()
  bool halted_ = false;     ///< after an error, until the guest stops and starts the port
  bool softReset_ = false;  ///< SRST is set
  unsigned inFlight_ = 0, generation_ = 0;
  struct {
    std::uint8_t tag = 0, status = 0, error = 0;
  } failed_;  ///< the queued command that failed last
};

}  // namespace lodge
