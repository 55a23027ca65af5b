// SPDX-License-Identifier: Apache-2.0
// isolation --engine interpret|translate: guest code, user's and kernel's, tries to read, write and execute at the
// addresses where the machine process has something (its code, its heap, the code cache, the soft TLBs, guest RAM, its
// stacks), and at their aliases, and at random ones; with every kind of access, with RSP and segment bases there. Its
// page tables give it nothing there, so each must fault as the manual says; what the process holds must be as before.
#include <fmt/format.h>
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "tests/paging/model.h"

using namespace lodge;
using namespace lodge::paging;

namespace {

struct Attempt {
  Stub stub;
  Kind kind;
  unsigned bytes;
  bool stack;  ///< not canonical: #SS
};
constexpr Attempt kAttempts[] = {
    {Stub::load1, Kind::read, 1, false},   {Stub::load8, Kind::read, 8, false},  {Stub::store4, Kind::write, 4, false},
    {Stub::store8, Kind::write, 8, false}, {Stub::add4, Kind::write, 4, false},  {Stub::call, Kind::execute, 1, false},
    {Stub::jump, Kind::execute, 1, false}, {Stub::push, Kind::write, 8, true},   {Stub::pop, Kind::read, 8, true},
    {Stub::ret, Kind::read, 8, true},      {Stub::loadFs, Kind::read, 8, false}, {Stub::loadSum, Kind::read, 8, false},
    {Stub::vector, Kind::read, 16, false}, {Stub::copy, Kind::read, 1, false},
};

/// First and last bytes of everything that the process has mapped.
std::vector<std::pair<std::uint64_t, std::uint64_t>> hostMappings() {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> list;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    char* rest = nullptr;
    std::uint64_t first = std::strtoull(line.c_str(), &rest, 16), end = std::strtoull(rest + 1, nullptr, 16);
    if (first < end) list.emplace_back(first, end);
  }
  return list;
}

bool isCanonical(std::uint64_t linear) {
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(linear << 16) >> 16) == linear;
}

class Sweep {
 public:
  Sweep(Machine& machine, std::uint64_t seed) : machine_(machine), random_(seed), cpu_(machine, MachineKind{}) {
    mappings_ = hostMappings();
    canary_ = static_cast<std::uint64_t*>(
        ::mmap(nullptr, kPageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    for (unsigned i = 0; i < kPageSize / 8; ++i) canary_[i] = kCanary + i;
    auto at = reinterpret_cast<std::uint64_t>(canary_);
    mappings_.insert(mappings_.end(), mappings_.size() / 4 + 1, {at, at + kPageSize});
  }
  std::string run(std::uint64_t count);
  std::map<unsigned, std::uint64_t> faults;

 private:
  static constexpr std::uint64_t kCanary = 0x1badc0de'5eed0000;
  std::uint64_t below(std::uint64_t limit) { return random_() % limit; }
  std::uint64_t address();
  std::string attempt(const Attempt& a, std::uint64_t address, bool user);
  std::string mapAnything();

  Machine& machine_;
  std::mt19937_64 random_;
  CpuModel cpu_;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> mappings_;
  std::uint64_t* canary_;
};

std::uint64_t Sweep::address() {
  std::uint64_t linear = random_() >> below(64);
  if (below(8) != 0) {
    const auto& [first, end] = mappings_[below(mappings_.size())];
    std::uint64_t offset = below(3) == 0 ? below(2) * (end - first - 8) : below(end - first);
    linear = first + offset;
  }
  // Its alias in the other half, one that is not canonical, distances that tables are added or cut at.
  switch (below(12)) {
    case 0:
      return linear ^ 0xffff'8000'0000'0000;
    case 1:
      return linear ^ 1ull << (47 + below(17));
    case 2:
      return linear - kUserLinear;
    case 3:
      return linear - kKernelLinear;
    case 4:
      return ~linear;
    case 5:
      return kUserLinear ^ 1ull << (16 + below(48));  // what is mapped, but for a bit
    case 6:
      return kKernelLinear + below(0x400000);  // the kernel's own, for users
    default:
      return linear;
  }
}

std::string Sweep::attempt(const Attempt& a, std::uint64_t at, bool user) {
  Operation operation{a.stub, user, below(2) != 0, at, random_()};
  std::uint64_t first = a.stub == Stub::push ? at - 8 : at;  // what is touched
  if (a.stub == Stub::loadSum) {
    operation.value = random_() & 0xffff'ffff'ffff;
    operation.address = at - operation.value;
  }
  if (first % kPageSize + a.bytes > kPageSize) return "";
  bool canonical = isCanonical(first);
  Walk w = walk(machine_, cpu_, first, a.kind, user, operation.accessCheckOff);
  if (canonical && w.ok) return "";  // its own
  if (a.stub == Stub::loadFs && !isCanonical(at)) canonical = false;
  Outcome o = machine_.run(0, operation);
  ++faults[o.vector];
  unsigned wanted = canonical ? 14 : a.stack ? 12 : 13;
  std::string wrong;
  // HLT at CPL 3 is a #GP, too, and is told as the stub's end: RAX shows whether something was read.
  if (!canonical && user && !a.stack && o.vector == 0) o.vector = 13;
  if (o.vector != wanted) {
    wrong = fmt::format("exception {}, not {}", o.vector, wanted);
  } else if (canonical && (o.errorCode != w.errorCode || o.address != first)) {
    wrong = fmt::format("error code {:x}, address {:x}, not {:x}", o.errorCode, o.address, w.errorCode);
  } else if (o.value != operation.value) {
    wrong = fmt::format("RAX is {:x}, not {:x}", o.value, operation.value);
  }
  if (wrong.empty()) return "";
  return fmt::format("{} stub {} at {:x}: {}", user ? "user" : "kernel", static_cast<unsigned>(a.stub), at, wrong);
}

/// A kernel maps a guest-physical address that has no RAM, perhaps the number of a host address, and uses it: that is
/// the devices' business, or a reserved bit.
std::string Sweep::mapAnything() {
  constexpr std::uint64_t kPresentWritableUser = 7, kReserved = 8, kAddress = 0x000f'ffff'ffff'f000;
  std::uint64_t gpa = address() & kAddress, linear = machine_.layout().pages[0];
  if (gpa < machine_.ramEnd() + 64_MiB) return "";
  machine_.write(machine_.slotOf(0, linear, 0), gpa | kPresentWritableUser);
  (void)machine_.run(0, {Stub::invlpg, false, false, linear, 0});
  bool user = below(2) != 0;
  machine_.mmioWrites().clear();
  std::uint64_t value = random_(), wanted = 0;
  Outcome stored = machine_.run(0, {Stub::store8, user, true, linear, value});
  Outcome loaded = machine_.run(0, {Stub::load8, user, true, linear, 0});
  machine_.write(machine_.slotOf(0, linear, 0), 0);
  (void)machine_.run(0, {Stub::invlpg, false, false, linear, 0});
  ++faults[loaded.vector];
  for (unsigned i = 0; i < 8; ++i) wanted |= std::uint64_t{mmioByte(gpa + i)} << (8 * i);
  bool reserved = stored.vector == 14 && loaded.vector == 14 && (loaded.errorCode & kReserved) != 0;
  bool device = stored.vector == 0 && loaded.vector == 0 && loaded.value == wanted &&
                machine_.mmioWrites().size() == 8 && machine_.mmioWrites().begin()->first == gpa;
  if (reserved || device) return "";
  return fmt::format("guest-physical {:x}: exceptions {} and {}, {:x} was loaded", gpa, stored.vector, loaded.vector,
                     loaded.value);
}

std::string Sweep::run(std::uint64_t count) {
  for (std::uint64_t n = 0; n < count; ++n) {
    if (n % 16 == 0)
      if (std::string wrong = mapAnything(); !wrong.empty()) return wrong;
    std::string wrong = attempt(kAttempts[below(std::size(kAttempts))], address(), below(2) != 0);
    if (!wrong.empty()) return wrong;
    if (n % 4096 == 0)
      mappings_.front() = {reinterpret_cast<std::uint64_t>(&machine_.cpu(0)),
                           reinterpret_cast<std::uint64_t>(&machine_.cpu(0)) + sizeof(x86::Cpu)};
  }
  for (unsigned i = 0; i < kPageSize / 8; ++i)
    if (canary_[i] != kCanary + i) return fmt::format("the machine process's memory was changed at word {}", i);
  return "";
}

}  // namespace

int main(int argc, char** argv) {
  std::string engine = "translate", trace;
  std::uint64_t seed = 1, count = 100000;
  for (int i = 1; i + 1 < argc; i += 2) {
    std::string a = argv[i], v = argv[i + 1];
    if (a == "--engine") engine = v;
    if (a == "--trace") trace = v;
    if (a == "--seed") seed = std::strtoull(v.c_str(), nullptr, 0);
    if (a == "--count") count = std::strtoull(v.c_str(), nullptr, 0);
  }
  auto machine = Machine::create(engine, trace, MachineKind{});
  if (!machine) {
    fmt::print(stderr, "isolation: {}\n", machine.error().message());
    return 3;
  }
  Sweep sweep(**machine, seed);
  std::string wrong = sweep.run(count);
  for (const auto& [vector, n] : sweep.faults) fmt::print("exception {}: {}\n", vector, n);
  fmt::print("isolation: engine {}, seed {}, {} attempts: {}\n", engine, seed, count,
             wrong.empty() ? "each faulted as it must" : wrong);
  return wrong.empty() ? 0 : 1;
}
