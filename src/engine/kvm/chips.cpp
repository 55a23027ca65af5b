// SPDX-License-Identifier: Apache-2.0
#include "engine/kvm/chips.h"

#include <algorithm>

namespace lodge::kvm {

namespace {

constexpr std::uint8_t kElcrWritable[2] = {0xf8, 0xde};
constexpr std::uint64_t kIoApicBase = 0xfec0'0000;
// Redirection table entry (82093AA data sheet, 3.2.4).
constexpr std::uint64_t kMode = 6 << 8, kDeliveryStatus = 1 << 12, kLevel = 1 << 15, kMasked = 1 << 16;

// What comes next of a counter's bytes (Linux arch/x86/kvm/i8254.c).
enum Bytes : std::uint8_t { kNone, kLow, kHigh, kWordLow, kWordHigh };
constexpr std::uint8_t kNoMode = 0xff;  // nothing was written to the counter
constexpr std::uint32_t kWhole = 0x10000;

bool repeats(unsigned mode) {
  return mode == 2 || mode == 3;
}
bool isTriggered(unsigned mode) {
  return mode == 1 || mode == 5;
}

/// Of a counter that counts once: so many ticks are left.
std::uint32_t leftOf(const x86::PitCounter& counter, std::uint64_t passed, bool interrupts) {
  if (passed < counter.count) return static_cast<std::uint32_t>(counter.count - passed);
  // It is over. KVM has no way to say so: one with an interrupt counts as long as it can, another is soon over again.
  return interrupts ? kWhole - static_cast<std::uint32_t>((passed - counter.count) % kWhole) : 1;
}

void toKvm(const x86::PitCounter& c, std::uint64_t savedAt, bool interrupts, kvm_pit_channel_state& out) {
  out = {};
  std::uint64_t passed = c.elapsed + (c.counting ? savedAt - c.since : 0);
  out.count = c.nextCount != 0 ? c.nextCount : c.count;
  if (c.loaded && c.nextCount == 0 && !repeats(c.mode)) out.count = leftOf(c, passed, interrupts);
  out.mode = c.mode;
  if (!c.loaded && c.since == 0) out.mode = kNoMode;
  out.bcd = c.bcd;
  out.gate = c.gate;
  out.rw_mode = c.access;
  out.read_state = c.access == kWordLow && c.readHighNext && c.latchedBytes == 0 ? kWordHigh : c.access;
  out.write_state = c.highByteNext ? kWordHigh : c.access;
  out.write_latch = c.lowByte;
  out.latched_count = c.latched;
  if (c.latchedBytes != 0) out.count_latched = c.access == kWordLow && c.latchedBytes == 1 ? kHigh : c.access;
  out.status_latched = c.statusLatched;
  out.status = c.status;
}

std::uint64_t ticksOf(std::int64_t nanoseconds) {
  constexpr unsigned __int128 kHz = 1'193'182, kSecond = 1'000'000'000;
  return static_cast<std::uint64_t>(static_cast<unsigned __int128>(std::max<std::int64_t>(nanoseconds, 0)) * kHz /
                                    kSecond);
}

x86::PitCounter counterOf(const kvm_pit_channel_state& in, bool first, std::int64_t now) {
  x86::PitCounter c;
  c.gate = in.gate != 0;
  if (in.mode > 5) return c;
  c.access = in.rw_mode >= kLow && in.rw_mode <= kWordLow ? in.rw_mode : std::uint8_t{kWordLow};
  c.mode = in.mode;
  c.bcd = in.bcd != 0;
  c.loaded = true;
  c.counting = c.gate || isTriggered(c.mode);
  c.highByteNext = in.write_state == kWordHigh;
  c.readHighNext = in.read_state == kWordHigh || (in.count_latched == kHigh && c.access == kWordLow);
  c.lowByte = in.write_latch;
  c.latchedBytes = in.count_latched == kNone ? 0 : in.count_latched == kWordLow ? 2 : 1;
  c.latched = in.latched_count;
  c.statusLatched = in.status_latched != 0;
  c.status = in.status;
  c.count = std::clamp<std::uint32_t>(in.count, 1, kWhole);
  if (!first)
    c.elapsed = ticksOf(now - in.count_load_time);
  else if (repeats(c.mode))
    c.elapsed = c.count / 2;
  return c;
}

}  // namespace

void toKvm(const x86::PicRegisters& pic, bool slave, kvm_pic_state& out) {
  out = {};
  out.last_irr = pic.levels;
  out.irr = pic.irr;
  out.imr = pic.initialized ? pic.imr : 0xff;  // KVM's asks before anything was written to it
  out.isr = pic.isr;
  out.priority_add = (pic.lowestPriority + 1) & 7;
  out.irq_base = pic.vectorBase;
  out.read_reg_select = pic.readIsr;
  out.poll = pic.poll;
  out.special_mask = pic.specialMask;
  out.init_state = pic.initializing == 0 ? 0 : static_cast<std::uint8_t>(pic.initializing - 1);
  out.auto_eoi = pic.autoEoi;
  out.rotate_on_auto_eoi = pic.rotateOnAutoEoi;
  out.special_fully_nested_mode = pic.specialFullyNested;
  out.init4 = pic.needIcw4;
  out.elcr = pic.elcr;
  out.elcr_mask = kElcrWritable[slave];
}

void fromKvm(const kvm_pic_state& in, x86::PicRegisters& pic) {
  pic.irr = in.irr;
  pic.isr = in.isr;
  pic.lowestPriority = (in.priority_add + 7) & 7;
  pic.vectorBase = in.irq_base & 0xf8;
  pic.readIsr = in.read_reg_select != 0;
  pic.poll = in.poll != 0;
  pic.specialMask = in.special_mask != 0;
  pic.initializing = in.init_state == 0 ? 0 : static_cast<std::uint8_t>(std::min<unsigned>(in.init_state, 3) + 1);
  // Nobody has the processor's exceptions for vectors.
  pic.initialized = in.init_state == 0 && (pic.initialized || pic.vectorBase != 0);
  if (pic.initialized || pic.initializing != 0) pic.imr = in.imr;
  pic.autoEoi = in.auto_eoi != 0;
  pic.rotateOnAutoEoi = in.rotate_on_auto_eoi != 0;
  pic.specialFullyNested = in.special_fully_nested_mode != 0;
  pic.needIcw4 = in.init4 != 0;
  pic.elcr = in.elcr;
}

void toKvm(const x86::IoApicRegisters& ioApic, kvm_ioapic_state& out) {
  out = {};
  out.base_address = kIoApicBase;
  out.ioregsel = ioApic.select;
  out.id = ioApic.id;
  for (unsigned pin = 0; pin < x86::IoApicRegisters::kPins; ++pin) {
    std::uint64_t entry = ioApic.entries[pin];
    out.redirtbl[pin].bits = entry;
    bool asks = (entry & kLevel) != 0 && (entry & kMode) == 0;
    if (asks || (entry & kMasked) != 0) out.irr |= ioApic.levels & 1u << pin;
  }
}

void fromKvm(const kvm_ioapic_state& in, x86::IoApicRegisters& ioApic) {
  ioApic.select = in.ioregsel & 0xff;
  ioApic.id = in.id & 0xf;
  for (unsigned pin = 0; pin < x86::IoApicRegisters::kPins; ++pin)
    ioApic.entries[pin] = in.redirtbl[pin].bits & 0xff00'0000'0001'ffff & ~kDeliveryStatus;
}

void toKvm(const x86::PitRegisters& pit, bool silent, kvm_pit_state2& out) {
  out = {};
  for (unsigned n = 0; n < 3; ++n) toKvm(pit.channels[n], pit.savedAt, n == 0, out.channels[n]);
  out.flags = (silent ? KVM_PIT_FLAGS_HPET_LEGACY : 0) | ((pit.control & 2) != 0 ? KVM_PIT_FLAGS_SPEAKER_DATA_ON : 0);
}

void fromKvm(const kvm_pit_state2& in, std::int64_t now, x86::PitRegisters& pit) {
  pit.savedAt = 0;
  for (unsigned n = 0; n < 3; ++n) pit.channels[n] = counterOf(in.channels[n], n == 0, now);
  bool speaker = (in.flags & KVM_PIT_FLAGS_SPEAKER_DATA_ON) != 0;
  pit.control = static_cast<std::uint8_t>((pit.control & 0x0c) | (speaker ? 2 : 0) | (pit.channels[2].gate ? 1 : 0));
}

}  // namespace lodge::kvm
