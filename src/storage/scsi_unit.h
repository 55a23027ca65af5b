// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <functional>
#include <span>

#include "state/archive.h"

namespace lodge {

namespace scsi {
inline constexpr std::uint8_t kGood = 0x00, kCheckCondition = 0x02;  // status (SAM-5, 5.3.1)
inline constexpr std::uint8_t kNotReady = 2, kMediumError = 3, kHardwareError = 4, kIllegalRequest = 5,
                              kUnitAttention = 6, kDataProtect = 7;  // sense keys (SPC-4, 4.5.6)
}  // namespace scsi

/// How a SCSI command ended.
struct ScsiResult {
  std::uint8_t status = scsi::kGood;
  std::uint8_t senseKey = 0;
  std::uint16_t senseCode = 0;  ///< additional sense code and its qualifier
  std::uint64_t moved = 0;      ///< bytes of data that the command gave or took
  bool overrun = false;         ///< the initiator's buffer was too small for the command's data

  static ScsiResult failed(std::uint8_t key, std::uint16_t code) { return {scsi::kCheckCondition, key, code}; }
  /// Sense data in the fixed format (SPC-4, 4.5.3).
  std::array<std::uint8_t, 18> sense() const {
    std::array<std::uint8_t, 18> s{0x70, 0, senseKey, 0, 0, 0, 0, 10};
    s[12] = static_cast<std::uint8_t>(senseCode >> 8);
    s[13] = static_cast<std::uint8_t>(senseCode);
    return s;
  }
};

struct ScsiCommand {
  std::array<std::uint8_t, 16> cdb{};
  std::span<const iovec> fromInitiator, toInitiator;
};

/// A logical unit: takes commands from any thread, several at once. What a command's buffers point to stays until its
/// completion, which comes on any thread, also before execute() returns.
class ScsiUnit {
 public:
  using Completion = std::function<void(const ScsiResult&)>;
  virtual ~ScsiUnit() = default;
  virtual void execute(const ScsiCommand& command, Completion done) = 0;
  /// Disk::settle() of what is behind it. While there is no command.
  virtual int quiesce() { return 0; }
  /// Saves or loads it, while there is no command.
  virtual void transfer(state::Archive&) {}
};

}  // namespace lodge
