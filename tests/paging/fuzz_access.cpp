// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "tests/paging/fuzz.h"

namespace lodge::paging {

namespace {
constexpr std::uint64_t kAccessed = 0x20, kDirty = 0x40;
}  // namespace

/// A, and D of the leaf, are set where the access was done; at a fault they may be.
std::string Fuzz::checkTables(const Walk* walks, unsigned count, Kind kind, bool faulted) {
  unsigned bytes = machine_.layout().entryBytes;
  for (unsigned n = 0; n < count; ++n) {
    for (unsigned i = 0; i < walks[n].levels; ++i) {
      std::uint64_t slot = walks[n].slots[i], wanted = 0, now = machine_.entry(slot);
      std::memcpy(&wanted, tables_.data() + slot, bytes);
      if (faulted) {
        if ((now & ~(kAccessed | kDirty)) == wanted || now == wanted || ((now ^ wanted) & ~(kAccessed | kDirty)) == 0)
          wanted |= now & (kAccessed | kDirty);
      } else {
        // A global page that is cached since another address space was there is not looked up in this one's tables.
        bool leaf = i + 1 == walks[n].levels, own = !leaf || walks[n].levels == 1;
        std::uint64_t bits = kAccessed | (kind == Kind::write && leaf ? kDirty : 0);
        wanted |= walks[n].global && cpu().pge && own ? now & bits : bits;
      }
      std::memcpy(tables_.data() + slot, &wanted, bytes);
    }
  }
  const std::byte* now = machine_.physical(0, kTablesEnd);
  if (std::memcmp(now, tables_.data(), kTablesEnd) == 0) return "";
  for (std::uint64_t at = 0; at < kTablesEnd; at += 8) {
    std::uint64_t wanted = 0;
    std::memcpy(&wanted, tables_.data() + at, sizeof wanted);
    if (wanted != machine_.read(at))
      return fmt::format("the entry at {:x} is {:x}, not {:x}", at, machine_.read(at), wanted);
  }
  return "";
}

std::string Fuzz::check(const Operation& operation, Kind kind, unsigned bytes) {
  std::uint64_t address = operation.address;
  unsigned first = static_cast<unsigned>(std::min<std::uint64_t>(bytes, kPageSize - (address & kPageMask)));
  unsigned count = first < bytes ? 2 : 1;
  Walk walks[2];
  walks[0] = walk(machine_, cpu(), address, kind, operation.user, operation.accessCheckOff);
  if (count == 2) walks[1] = walk(machine_, cpu(), address + first, kind, operation.user, operation.accessCheckOff);
  bool faulted = !walks[0].ok || (count == 2 && !walks[1].ok);
  if (walks[0].outside || walks[1].outside) return "";
  auto gpaOf = [&](unsigned n) { return n < first ? walks[0].gpa + n : walks[1].gpa + (n - first); };
  std::uint64_t old = 0;
  if (!faulted) {
    if (kind == Kind::execute && (isDevice(gpaOf(0)) || isDevice(gpaOf(bytes - 1)))) return "";
    for (unsigned n = 0; n < std::min(bytes, 8u); ++n) old |= std::uint64_t{readByte(gpaOf(n))} << (8 * n);
  }
  machine_.mmioWrites().clear();
  ++accesses;
  if (verbose_) fmt::print("access {} {}\n", text(operation), faulted ? "faults" : "");
  Outcome o = machine_.run(vcpu_, operation);
  if (faulted) {
    ++faults;
    const Walk& w = walks[0].ok ? walks[1] : walks[0];
    std::uint64_t wanted = walks[0].ok ? address + first : address;
    if (o.vector != 14 || o.errorCode != w.errorCode || o.address != wanted)
      return fmt::format("exception {} error code {:x} address {:x}, not 14, {:x}, {:x}", o.vector, o.errorCode,
                         o.address, w.errorCode, wanted);
    return checkTables(walks, walks[0].ok ? 2 : 1, kind, true);
  }
  if (o.vector != 0)
    return fmt::format("exception {} error code {:x} address {:x}, but the access is allowed", o.vector, o.errorCode,
                       o.address);
  std::uint64_t mask = bytes >= 8 ? ~0ull : (1ull << 8 * bytes) - 1, result = old, stored = operation.value;
  if (kind == Kind::execute) {
    result = (old >> 8) & 0xffff'ffff;
    mask = ~0ull;
  } else if (operation.stub == Stub::load1) {
    result = (operation.value & ~0xffull) | old;
    mask = ~0ull;
  } else if (operation.stub == Stub::add4) {
    stored = old + operation.value;
  }
  bool loads = kind != Kind::write || operation.stub == Stub::add4;
  if (loads && ((o.value ^ result) & mask) != 0) return fmt::format("{:x}, not {:x}", o.value, result);
  for (unsigned n = 0; kind == Kind::write && n < bytes; ++n) {
    std::uint64_t gpa = gpaOf(n);
    auto wanted = static_cast<std::uint8_t>(stored >> (8 * n));
    std::uint8_t now = isDevice(gpa) ? machine_.mmioWrites()[gpa] : readByte(gpa);
    // One frame at both addresses: the later byte stays.
    if (count == 2 && gpaOf(0) / kPageSize == gpaOf(bytes - 1) / kPageSize) continue;
    if (now != wanted) return fmt::format("byte {} at {:x} is {:x}, not {:x}", n, gpa, now, wanted);
  }
  return checkTables(walks, count, kind, false);
}

/// Invalidations until nothing that is cached of the address may be out of date.
std::string Fuzz::makeFresh(std::uint64_t linear) {
  auto index = static_cast<unsigned>(machine_.layout().pageAt(linear));
  for (unsigned n = 0; cpu().needsFlush(index) && n < 40; ++n)
    if (std::string wrong = flush(); !wrong.empty()) return wrong;
  if (!cpu().needsFlush(index)) return "";
  cpu().flushed(index, true, cpu().pcid(cpu().space));
  return system({Stub::invlpg, false, false, linear, 0});
}

std::string Fuzz::access() {
  struct Choice {
    Stub stub;
    Kind kind;
    unsigned bytes;
  };
  static constexpr Choice kChoices[] = {
      {Stub::load1, Kind::read, 1},   {Stub::load4, Kind::read, 4},   {Stub::load8, Kind::read, 8},
      {Stub::load8, Kind::read, 8},   {Stub::store1, Kind::write, 1}, {Stub::store4, Kind::write, 4},
      {Stub::store8, Kind::write, 8}, {Stub::add4, Kind::write, 4},   {Stub::call, Kind::execute, 6},
      {Stub::call, Kind::execute, 6}, {Stub::store4, Kind::write, 4}};
  Choice choice = kChoices[below(std::size(kChoices))];
  if (!wide() && choice.bytes == 8) choice = choice.kind == Kind::read ? kChoices[1] : kChoices[5];
  Operation operation{choice.stub, chance(50), false, 0, wide() ? random_() : random_() & 0xffff'ffff};
  operation.accessCheckOff = chance(40);
  unsigned page = static_cast<unsigned>(below(pages().size()));
  std::uint64_t offset = 64 + below(3900);
  if (chance(40)) offset &= ~7ull;
  bool neighbour = machine_.layout().pageAt(pages()[page] + kPageSize) >= 0;
  if (choice.kind == Kind::execute) {
    offset = neighbour && chance(30) ? kCodeAcross : kCode;
  } else if (choice.bytes == 4 && chance(50)) {
    offset = neighbour && chance(50) ? 4094 : kCode + 1;  // code's constants
  } else if (choice.kind == Kind::read && choice.bytes > 1 && neighbour && chance(30)) {
    offset = kPageSize + 1 - choice.bytes + below(choice.bytes - 1);
  }
  // LOCK where the access crosses: alignment checks are off at CPL 3 without CR0.AM.
  operation.address = pages()[page] + offset;
  std::string wrong = makeFresh(operation.address);
  if (wrong.empty()) wrong = makeFresh(operation.address + choice.bytes - 1);
  // Twice: then what the first has cached is used.
  for (unsigned n = 0; n < 2 && wrong.empty(); ++n) wrong = check(operation, choice.kind, choice.bytes);
  return wrong.empty() ? "" : text(operation) + ": " + wrong;
}

}  // namespace lodge::paging
