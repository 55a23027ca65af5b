// SPDX-License-Identifier: Apache-2.0
// paging --engine interpret|translate: random changes of page tables and control registers, every kind of invalidation,
// and accesses of every kind by two vCPUs; each access must do what a walk of the tables says.
#include <fmt/format.h>

#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "tests/paging/model.h"
#include "tests/paging/shootdown.h"

using namespace lodge;
using namespace lodge::paging;

namespace {

constexpr std::uint64_t kPresent = 1, kWrite = 2, kUserBit = 4, kAccessed = 0x20, kDirty = 0x40, kLarge = 0x80,
                        kGlobal = 0x100, kNoExecute = 1ull << 63, kNoFlush = 1ull << 63;
constexpr unsigned kCode = 16, kCodeAcross = 4093;  ///< offsets of MOV EAX, imm32; RET
constexpr std::uint64_t kFramePages[] = {0, 1, 2, 510, 511};

class Fuzz {
 public:
  Fuzz(Machine& machine, std::uint64_t seed, bool pcide, bool verbose)
      : machine_(machine), random_(seed), verbose_(verbose), cpus_{CpuModel(pcide), CpuModel(pcide)} {
    for (unsigned i = 0; i < kFrameCount; ++i) frames_.push_back(kFrames + i * kPageSize);
    for (unsigned i = 0; i < kLargeFrameCount; ++i)
      for (std::uint64_t page : kFramePages) frames_.push_back(kLargeFrames + i * 2_MiB + page * kPageSize);
    for (std::uint64_t frame : frames_) fillFrame(frame);
    for (unsigned n = 0; n < 200; ++n) edit();
    tables_ = tables();
  }
  /// What was wrong; "" if nothing was.
  std::string run(std::uint64_t count);
  std::uint64_t accesses = 0, faults = 0, edits = 0, flushes = 0;

 private:
  std::uint64_t below(std::uint64_t limit) { return random_() % limit; }
  bool chance(unsigned percent) { return below(100) < percent; }
  CpuModel& cpu() { return cpus_[vcpu_]; }
  std::vector<std::byte> tables() const {
    const std::byte* p = machine_.physical(0, kTablesEnd);
    return {p, p + kTablesEnd};
  }
  void fillFrame(std::uint64_t frame);
  std::uint64_t flags(bool mayBeGlobal);
  void edit();
  void writeEntry(std::uint64_t slot, std::uint64_t value);
  std::string system(const Operation& operation);
  std::string flush();
  std::string switchSpace();
  std::string control();
  std::string access();
  Walk expect(Walk* walks, const Operation& operation, Kind kind, unsigned bytes, std::uint64_t& faultAddress);
  std::string check(const Operation& operation, Kind kind, unsigned bytes);
  std::string checkTables(const Walk* walks, unsigned count, Kind kind, bool faulted);
  std::uint8_t readByte(std::uint64_t gpa) const {
    return gpa >= kMmio ? mmioByte(gpa) : static_cast<std::uint8_t>(*machine_.physical(gpa, 1));
  }
  std::string text(const Operation& o) const {
    const CpuModel& c = cpus_[vcpu_];
    return fmt::format("vCPU {} space {} {} stub {} address {:x} value {:x} ac {} wp {} smep {} smap {} pge {}", vcpu_,
                       c.space, o.user ? "user" : "kernel", static_cast<unsigned>(o.stub), o.address, o.value,
                       o.accessCheckOff, c.wp, c.smep, c.smap, c.pge);
  }

  Machine& machine_;
  std::mt19937_64 random_;
  bool verbose_;
  std::array<CpuModel, kVcpus> cpus_;
  unsigned vcpu_ = 0;
  std::vector<std::uint64_t> frames_;
  std::vector<std::byte> tables_;  ///< as they should be
};

void Fuzz::fillFrame(std::uint64_t frame) {
  for (unsigned at = 0; at < kPageSize; at += 8) machine_.write(frame + at, random_());
  std::byte* p = machine_.physical(frame, kPageSize);
  p[2] = p[kCode + 5] = std::byte{0xc3};
  p[kCode] = p[kCodeAcross] = std::byte{0xb8};
}

std::uint64_t Fuzz::flags(bool mayBeGlobal) {
  return (chance(85) ? kPresent : 0) | (chance(75) ? kWrite : 0) | (chance(60) ? kUserBit : 0) |
         (chance(40) ? kAccessed : 0) | (chance(40) ? kDirty : 0) | (mayBeGlobal && chance(50) ? kGlobal : 0) |
         (chance(25) ? kNoExecute : 0);
}

void Fuzz::writeEntry(std::uint64_t slot, std::uint64_t value) {
  if (chance(50) || tables_.empty()) {
    machine_.write(slot, value);
  } else {
    Operation store{Stub::store8, false, false, kTablesLinear + slot, value};
    (void)machine_.run(vcpu_, store);
  }
  if (!tables_.empty()) std::memcpy(tables_.data() + slot, &value, sizeof value);
}

/// One entry, of any level, becomes something else.
void Fuzz::edit() {
  ++edits;
  unsigned space = static_cast<unsigned>(below(kSpaces));
  std::uint64_t linear = pages()[below(pages().size())];
  bool shared = linear >= kRegions[1];
  unsigned which = static_cast<unsigned>(below(20));
  int level = which < 14 ? 0 : which < 18 ? 1 : which < 19 || !shared ? 2 : 3;
  std::uint64_t slot = machine_.slotOf(space, linear, level), before = machine_.read(slot), value = 0;
  if (level == 0) {
    value = (chance(8) ? kMmio + below(kMmioFrames) * kPageSize : frames_[below(frames_.size())]) | flags(shared);
  } else if (level == 1 && chance(40)) {
    value = (kLargeFrames + below(kLargeFrameCount) * 2_MiB) | kLarge | flags(shared) | (chance(4) ? 0x2000 : 0);
  } else {
    std::uint64_t table = level == 1 ? machine_.tableOf(space, linear) : before & 0x000f'ffff'ffff'f000;
    value = table | (flags(false) & ~kDirty) | (chance(70) ? kPresent | kWrite | kUserBit : 0);
    if (chance(60)) value &= ~kNoExecute;
  }
  // Global pages are the same in all spaces: so are the PML4 entries of the shared regions.
  for (unsigned other = 0; level == 3 && other < kSpaces; ++other) {
    std::uint64_t its = machine_.slotOf(other, linear, 3);
    if (its == slot) continue;
    for (CpuModel& c : cpus_) markStale(machine_, c, its, 3, machine_.read(its));
    writeEntry(its, value);
  }
  for (CpuModel& c : cpus_) markStale(machine_, c, slot, level, before);
  if (verbose_) fmt::print("edit {:x} level {} space {}: {:x} -> {:x}\n", linear, level, space, before, value);
  writeEntry(slot, value);
}

/// An operation that must not fault.
std::string Fuzz::system(const Operation& operation) {
  if (verbose_) fmt::print("system {}\n", text(operation));
  Outcome o = machine_.run(vcpu_, operation);
  return o.vector == 0 ? "" : fmt::format("exception {:x} in {}", o.vector, text(operation));
}

std::string Fuzz::switchSpace() {
  unsigned space = static_cast<unsigned>(below(kSpaces));
  bool keep = cpu().pcide && chance(60);
  cpu().space = space;
  if (!keep) cpu().flushedPcid(cpu().pcid(space));
  return system({Stub::writeCr3, false, false, 0, machine_.root(space) | cpu().pcid(space) | (keep ? kNoFlush : 0)});
}

std::string Fuzz::control() {
  CpuModel& c = cpu();
  switch (below(4)) {
    case 0:
      c.wp = !c.wp;
      return system({Stub::writeCr0, false, false, 0, c.cr0()});
    case 1:
      c.smep = !c.smep;
      break;
    case 2:
      c.smap = !c.smap;
      break;
    default:
      c.pge = !c.pge;
      c.flushedAll();
      break;
  }
  return system({Stub::writeCr4, false, false, 0, c.cr4()});
}

/// One invalidation, of any kind; perhaps not of what is out of date.
std::string Fuzz::flush() {
  ++flushes;
  CpuModel& c = cpu();
  unsigned page = static_cast<unsigned>(below(pages().size()));
  for (unsigned n = 0; n < 20 && !c.needsFlush(page); ++n) page = static_cast<unsigned>(below(pages().size()));
  std::uint64_t linear = pages()[page] + below(kPageSize);
  unsigned kind = static_cast<unsigned>(below(12));
  if (kind < 5) {
    c.flushed(page, true, c.pcid(c.space));
    return system({Stub::invlpg, false, false, linear, 0});
  }
  if (kind < 7) return switchSpace();
  if (kind == 7) {
    c.pge = !c.pge;
    c.flushedAll();
    return system({Stub::writeCr4, false, false, 0, c.cr4()});
  }
  // INVPCID; its descriptor lies on the kernel's stack.
  std::uint64_t type = below(4), pcid = c.pcid(static_cast<unsigned>(below(kSpaces)));
  std::uint64_t descriptor = kKernel + 0xa000;
  machine_.write(descriptor, pcid);
  machine_.write(descriptor + 8, linear);
  if (type == 0) {
    c.flushed(page, false, static_cast<unsigned>(pcid));
  } else if (type == 1) {
    c.flushedPcid(static_cast<unsigned>(pcid));
  } else if (type == 2) {
    c.flushedAll();
  } else {
    c.flushedLocal();
  }
  return system({Stub::invpcid, false, false, kKernelLinear + 0xa000, type});
}

/// A, and D of the leaf, are set where the access was done; at a fault they may be.
std::string Fuzz::checkTables(const Walk* walks, unsigned count, Kind kind, bool faulted) {
  for (unsigned n = 0; n < count; ++n) {
    for (unsigned i = 0; i < walks[n].levels; ++i) {
      std::uint64_t slot = walks[n].slots[i], wanted = 0, now = machine_.read(slot);
      std::memcpy(&wanted, tables_.data() + slot, sizeof wanted);
      if (faulted) {
        if ((now & ~(kAccessed | kDirty)) == wanted || now == wanted || ((now ^ wanted) & ~(kAccessed | kDirty)) == 0)
          wanted |= now & (kAccessed | kDirty);
      } else {
        // A global page that is cached since another address space was there is not looked up in this one's tables.
        bool leaf = i + 1 == walks[n].levels, optional = walks[n].global && cpu().pge && !leaf;
        wanted |= (optional ? now & kAccessed : kAccessed) | (kind == Kind::write && leaf ? kDirty : 0);
      }
      std::memcpy(tables_.data() + slot, &wanted, sizeof wanted);
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
  auto gpaOf = [&](unsigned n) { return n < first ? walks[0].gpa + n : walks[1].gpa + (n - first); };
  std::uint64_t old = 0;
  if (!faulted) {
    if (kind == Kind::execute && (gpaOf(0) >= kMmio || gpaOf(bytes - 1) >= kMmio)) return "";
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
    std::uint8_t now = gpa >= kMmio ? machine_.mmioWrites()[gpa] : readByte(gpa);
    // One frame at both addresses: the later byte stays.
    if (count == 2 && gpaOf(0) / kPageSize == gpaOf(bytes - 1) / kPageSize) continue;
    if (now != wanted) return fmt::format("byte {} at {:x} is {:x}, not {:x}", n, gpa, now, wanted);
  }
  return checkTables(walks, count, kind, false);
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
  const Choice& choice = kChoices[below(std::size(kChoices))];
  Operation operation{choice.stub, chance(50), false, 0, random_()};
  operation.accessCheckOff = chance(40);
  unsigned page = static_cast<unsigned>(below(pages().size()));
  std::uint64_t offset = 64 + below(3900);
  if (chance(40)) offset &= ~7ull;
  bool neighbour = pageAt(pages()[page] + kPageSize) >= 0;
  if (choice.kind == Kind::execute) {
    offset = neighbour && chance(30) ? kCodeAcross : kCode;
  } else if (choice.bytes == 4 && chance(50)) {
    offset = neighbour && chance(50) ? 4094 : kCode + 1;  // code's constants
  } else if (choice.stub == Stub::load8 && neighbour && chance(30)) {
    offset = 4089 + below(7);
  }
  // LOCK where the access crosses: alignment checks are off at CPL 3 without CR0.AM.
  operation.address = pages()[page] + offset;
  for (std::uint64_t at : {operation.address, operation.address + choice.bytes - 1}) {
    for (unsigned n = 0; cpu().needsFlush(static_cast<unsigned>(pageAt(at))); ++n) {
      if (n < 40) {
        if (std::string wrong = flush(); !wrong.empty()) return wrong;
        continue;
      }
      unsigned index = static_cast<unsigned>(pageAt(at));
      cpu().flushed(index, true, cpu().pcid(cpu().space));
      if (std::string wrong = system({Stub::invlpg, false, false, at, 0}); !wrong.empty()) return wrong;
    }
  }
  std::string wrong;
  // Twice: then what the first has cached is used.
  for (unsigned n = 0; n < 2 && wrong.empty(); ++n) wrong = check(operation, choice.kind, choice.bytes);
  return wrong.empty() ? "" : text(operation) + ": " + wrong;
}

std::string Fuzz::run(std::uint64_t count) {
  for (std::uint64_t n = 0; n < count; ++n) {
    if (chance(25)) vcpu_ = static_cast<unsigned>(below(kVcpus));
    unsigned what = static_cast<unsigned>(below(100));
    std::string wrong;
    if (what < 68) {
      wrong = access();
    } else if (what < 84) {
      edit();
    } else if (what < 90) {
      wrong = switchSpace();
    } else if (what < 94) {
      wrong = flush();
    } else if (what < 97) {
      wrong = control();
    } else {
      std::uint64_t frame = frames_[below(frames_.size())];
      machine_.write(frame + kCode + 1, (random_() & 0xffff'ffff) | 0xc3ull << 32);  // a device changes code
    }
    if (!wrong.empty()) return fmt::format("operation {}: {}", n, wrong);
  }
  return "";
}

struct Options {
  std::string engine = "translate", trace;
  std::uint64_t seed = 1, seeds = 1, count = 10000;
  bool verbose = false, shootdown = false;
};

int fail(const Error& error) {
  fmt::print(stderr, "paging: {}\n", error.message());
  return 3;
}

int fuzz(const Options& options) {
  int status = 0;
  std::uint64_t accesses = 0, faults = 0, edits = 0, flushes = 0;
  for (std::uint64_t seed = options.seed; seed < options.seed + options.seeds; ++seed) {
    bool pcide = seed % 2 != 0;
    auto machine = Machine::create(options.engine, options.trace, pcide);
    if (!machine) return fail(machine.error());
    Fuzz fuzz(**machine, seed, pcide, options.verbose);
    std::string wrong = fuzz.run(options.count);
    accesses += fuzz.accesses, faults += fuzz.faults, edits += fuzz.edits, flushes += fuzz.flushes;
    if (wrong.empty()) continue;
    fmt::print("WRONG seed {}: {}\n", seed, wrong);
    status = 1;
  }
  fmt::print("paging: engine {}, seeds {} to {}, {} accesses, {} faults, {} edits, {} invalidations, {}\n",
             options.engine, options.seed, options.seed + options.seeds - 1, accesses, faults, edits, flushes,
             status == 0 ? "as the tables say" : "WRONG");
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    std::string a = argv[i];
    if (a == "--shootdown") {
      o.shootdown = true;
      continue;
    }
    if (a == "--verbose") {
      o.verbose = true;
      continue;
    }
    if (i + 1 == argc) return 2;
    std::string v = argv[++i];
    if (a == "--engine")
      o.engine = v;
    else if (a == "--trace")
      o.trace = v;
    else if (a == "--seed")
      o.seed = std::strtoull(v.c_str(), nullptr, 0);
    else if (a == "--seeds")
      o.seeds = std::strtoull(v.c_str(), nullptr, 0);
    else if (a == "--count")
      o.count = std::strtoull(v.c_str(), nullptr, 0);
    else
      return 2;
  }
  if (!o.shootdown) return fuzz(o);
  std::string wrong = shootdown(o.engine, o.trace, o.seed, o.count);
  fmt::print("paging: shootdown, engine {}, seed {}, {} changes: {}\n", o.engine, o.seed, o.count,
             wrong.empty() ? "nothing stale was read" : wrong);
  return wrong.empty() ? 0 : 1;
}
