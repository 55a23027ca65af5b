// SPDX-License-Identifier: Apache-2.0
// Names and layouts of the NVM Express Base Specification, revision 1.4.
#pragma once

#include <cstdint>

namespace lodge::nvme {

/// Controller registers (3.1).
namespace reg {
inline constexpr unsigned cap = 0x00, vs = 0x08, intms = 0x0c, intmc = 0x10, cc = 0x14, csts = 0x1c, aqa = 0x24,
                          asq = 0x28, acq = 0x30, end = 0x38, doorbells = 0x1000;
}
inline constexpr std::uint32_t kCcEnable = 1, kCcShutdown = 3u << 14;
inline constexpr std::uint32_t kStsReady = 1, kStsFatal = 2, kStsShutdownDone = 2u << 2, kStsShutdown = 3u << 2;

/// A submission queue entry (4.2).
struct Command {
  std::uint8_t opcode = 0, flags = 0;
  std::uint16_t id = 0;
  std::uint32_t nsid = 0;
  std::uint64_t reserved = 0, metadata = 0;
  std::uint64_t prp1 = 0, prp2 = 0;
  std::uint32_t dw10 = 0, dw11 = 0, dw12 = 0, dw13 = 0, dw14 = 0, dw15 = 0;
};
static_assert(sizeof(Command) == 64);

/// A completion queue entry (4.6).
struct Completion {
  std::uint32_t result, reserved;
  std::uint16_t sqHead, sqId;
  std::uint16_t id, status;  ///< status: the phase in bit 0
};
static_assert(sizeof(Completion) == 16);

namespace admin {
inline constexpr std::uint8_t deleteSq = 0, createSq = 1, getLogPage = 2, deleteCq = 4, createCq = 5, identify = 6,
                              abort = 8, setFeatures = 9, getFeatures = 10, asyncEvent = 12;
}
namespace io {
inline constexpr std::uint8_t flush = 0, write = 1, read = 2, writeZeroes = 8, datasetManagement = 9;
}

/// Status codes: type << 8 | code (4.6.1).
namespace status {
inline constexpr std::uint16_t success = 0, invalidOpcode = 1, invalidField = 2, dataTransferError = 4,
                               internalError = 6, invalidNamespace = 0x0b, lbaOutOfRange = 0x80, cqInvalid = 0x100,
                               invalidQueueId = 0x101, invalidQueueSize = 0x102, asyncLimit = 0x105,
                               invalidVector = 0x108, invalidLogPage = 0x109, invalidQueueDeletion = 0x10c,
                               readOnlyRange = 0x182, writeFault = 0x280, unrecoveredRead = 0x281;
}

}  // namespace lodge::nvme
