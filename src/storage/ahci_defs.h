// SPDX-License-Identifier: Apache-2.0
// Names of the AHCI specification, revision 1.3.1.
#pragma once

#include <cstdint>

namespace lodge::ahci {

/// Generic host control (3.1).
namespace host {
inline constexpr unsigned cap = 0x00, ghc = 0x04, is = 0x08, pi = 0x0c, vs = 0x10, end = 0x2c, ports = 0x100;
}
inline constexpr std::uint32_t kHbaReset = 1, kInterruptEnable = 2, kAhciEnable = 1u << 31;

/// Port registers (3.3).
namespace port {
inline constexpr unsigned clb = 0x00, clbu = 0x04, fb = 0x08, fbu = 0x0c, is = 0x10, ie = 0x14, cmd = 0x18, tfd = 0x20,
                          sig = 0x24, ssts = 0x28, sctl = 0x2c, serr = 0x30, sact = 0x34, ci = 0x38;
}
inline constexpr std::uint32_t kStart = 1, kSpinUp = 2, kPowerOn = 4, kListOverride = 8, kFisReceive = 16,
                               kFisRunning = 1u << 14, kListRunning = 1u << 15, kIsAtapi = 1u << 24;  // PxCMD
inline constexpr std::uint32_t kRegistersReceived = 1, kPioSetupReceived = 2, kDeviceBitsReceived = 8,
                               kPortChanged = 1u << 6, kHostBusError = 1u << 29, kTaskFileError = 1u << 30;  // PxIS
inline constexpr std::uint32_t kLinkUp = 0x133;        // PxSSTS: a device, generation 3, active
inline constexpr std::uint32_t kExchanged = 1u << 26;  // PxSERR
inline constexpr std::uint32_t kAtaSignature = 0x00000101, kAtapiSignature = 0xeb140101;

/// Received FISes (4.2.1) and their types.
inline constexpr unsigned kPioSetupAt = 0x20, kRegistersAt = 0x40, kDeviceBitsAt = 0x58;
inline constexpr std::uint8_t kFisHostToDevice = 0x27, kFisRegisters = 0x34, kFisPioSetup = 0x5f, kFisDeviceBits = 0xa1;

/// A command header's first double word (4.2.2).
inline constexpr std::uint32_t kHeaderAtapi = 1u << 5, kHeaderWrite = 1u << 6, kHeaderClearBusy = 1u << 10;
inline constexpr unsigned kPacketAt = 0x40, kRegionsAt = 0x80;  // of a command table

}  // namespace lodge::ahci
