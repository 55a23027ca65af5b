// SPDX-License-Identifier: Apache-2.0
// Registers and structures of the eXtensible Host Controller Interface (xHCI 1.1).
#pragma once

#include <cstdint>

namespace lodge::xhci {

// BAR 0 (5.3 to 5.6).
namespace reg {
inline constexpr unsigned operational = 0x40, ports = 0x440, runtime = 0x1000, interrupter = 0x1020, doorbells = 0x2000,
                          end = 0x4000;
inline constexpr unsigned usbCmd = 0x40, usbSts = 0x44, pageSize = 0x48, dnCtrl = 0x54, crcr = 0x58, dcbaap = 0x70,
                          config = 0x78;
inline constexpr unsigned mfIndex = 0x1000, iman = 0x1020, imod = 0x1024, erstSize = 0x1028, erstBase = 0x1030,
                          erdp = 0x1038;
}  // namespace reg

inline constexpr std::uint32_t kRun = 1, kReset = 2, kInterruptEnable = 4;                                 // USBCMD
inline constexpr std::uint32_t kHalted = 1, kEventInterrupt = 8, kPortChange = 0x10, kHostError = 0x1000;  // USBSTS
inline constexpr std::uint32_t kPending = 1, kEnabled = 2;                                                 // IMAN
inline constexpr std::uint64_t kHandlerBusy = 8;                                                           // ERDP

// PORTSC (5.4.8).
namespace port {
inline constexpr std::uint32_t connected = 1, enabled = 2, reset = 1u << 4, power = 1u << 9, linkWrite = 1u << 16,
                               connectChange = 1u << 17, enableChange = 1u << 18, resetChange = 1u << 21,
                               linkChange = 1u << 22, warmReset = 1u << 31;
inline constexpr std::uint32_t changes = 0x7fu << 17, wakeBits = 7u << 25, linkMask = 15u << 5;
inline constexpr unsigned linkShift = 5, speedShift = 10;
enum Link : std::uint32_t { u0 = 0, u3 = 3, rxDetect = 5, polling = 7, resume = 15 };
}  // namespace port

/// Transfer request block (4.11).
struct Trb {
  std::uint64_t parameter;
  std::uint32_t status, control;
  unsigned type() const { return control >> 10 & 63; }
  bool cycle() const { return (control & 1) != 0; }
};
static_assert(sizeof(Trb) == 16);

namespace trb {
enum Type : unsigned {
  normal = 1,
  setup,
  data,
  status,
  isoch,
  link,
  eventData,
  noOp,
  enableSlot,
  disableSlot,
  addressDevice,
  configureEndpoint,
  evaluateContext,
  resetEndpoint,
  stopEndpoint,
  setDequeue,
  resetDevice,
  noOpCommand = 23,
  transferEvent = 32,
  commandEvent = 33,
  portEvent = 34,
};
inline constexpr std::uint32_t toggleCycle = 2, shortPacket = 4, chain = 0x10, onCompletion = 0x20, immediate = 0x40,
                               toHost = 1u << 16, blockAddress = 1u << 9, deconfigure = 1u << 9;
}  // namespace trb

enum class Code : std::uint8_t {
  success = 1,
  trbError = 5,
  stall = 6,
  noSlots = 9,
  slotNotEnabled = 11,
  endpointNotEnabled = 12,
  shortPacket = 13,
  parameterError = 17,
  contextState = 19,
  stopped = 26,
};

/// Slot and endpoint contexts (6.2.2, 6.2.3), of 32 bytes.
struct Context {
  std::uint32_t words[8];
};
static_assert(sizeof(Context) == 32);

enum class SlotState : std::uint32_t { enabled = 0, default_ = 1, addressed = 2, configured = 3 };
enum class EndpointState : std::uint32_t { disabled = 0, running = 1, halted = 2, stopped = 3, error = 4 };
enum class EndpointType : std::uint32_t { control = 4, interruptIn = 7 };

}  // namespace lodge::xhci
