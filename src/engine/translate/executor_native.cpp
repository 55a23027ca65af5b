// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/executor_native.h"

#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "base/bytes.h"
#include "base/units.h"
#include "x86/cpu_model.h"
#include "x86/instruction.h"

namespace lodge::translate {

using namespace x86;

namespace {

constexpr unsigned kBefore = 192;                  ///< bytes in which ways to read code come together
constexpr unsigned kWays = kMaxInstructionLength;  ///< ways to begin
constexpr std::uint8_t kEscape = 0x0f, kInt = 0xcd;
constexpr std::uint8_t kXgetbv = 0xd0, kXend = 0xd5, kXtest = 0xd6;  // after 0F 01

/// Of the second byte after 0F: what may be the machine's to answer.
bool maySense(const std::uint8_t* at) {
  if (at[0] == kInt) return at[1] == 0x80;
  switch (at[1]) {
    case 0x01:
      return at[2] != kXgetbv && at[2] != kXend && at[2] != kXtest;
    case 0x00:
    case 0x02:
    case 0x03:
    case 0x31:
    case 0x34:
    case 0xa2:
      return true;
    case 0xc7:
      return at[2] >= 0xf8;
    default:
      return false;
  }
}

/// Whether user code has them; else it is #UD, as in a guest.
bool hostHasProtectionKeys() {
  constexpr std::uint32_t kOspke = 1 << 4;
  std::uint32_t eax = 7, ebx, ecx = 0, edx;
  asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
  return (ecx & kOspke) != 0;
}

bool isSensed(const Instruction& i, bool timeStamps) {
  switch (i.info->op) {
    case Op::rdtsc:
      return !timeStamps;
    case Op::cpuid:
    case Op::rdtscp:
    case Op::rdpid:
    case Op::sldt:
    case Op::str:
    case Op::verr:
    case Op::verw:
    case Op::sgdt:
    case Op::sidt:
    case Op::smsw:
    case Op::lar:
    case Op::lsl:
    case Op::vmcall:
    case Op::vmmcall:
    case Op::sysenter:
      return true;
    case Op::rdpkru:
    case Op::wrpkru:
      return hostHasProtectionKeys();
    case Op::int_:
      return (i.immediate & 0xff) == 0x80;
    default:
      return false;
  }
}

/// What the bytes at each offset of a piece of code are, read as an instruction, found when it is asked for.
class Readings {
 public:
  Readings(const std::uint8_t* bytes, unsigned count, bool timeStamps)
      : bytes_(bytes), count_(count), timeStamps_(timeStamps) {}

  /// Whether the byte at `position` begins, or is the opcode of, an instruction that is sensed, in one of the ways to
  /// read the bytes.
  bool isReadSo(unsigned position) {
    unsigned first = position > kBefore ? position - kBefore : 0;
    for (unsigned begin = first; begin < first + kWays && begin <= position; ++begin) {
      for (unsigned at = begin; at <= position;) {
        Reading& here = readings_[at];
        if (here.read == 0) here = read(at);
        if (here.lastFrom == position) break;  // where another way has been
        here.lastFrom = static_cast<std::uint16_t>(position);
        // Nothing that the decoder knows: one byte at a time, or the position's own.
        if (here.length == 0 && at == position) return true;
        if (here.isSensed && at + here.length > position) return true;
        at += std::max<unsigned>(here.length, 1);
      }
    }
    return false;
  }

 private:
  struct Reading {
    std::uint8_t read, length, isSensed;  ///< length: 0 for none
    std::uint16_t lastFrom;
  };
  Reading read(unsigned at) const {
    Instruction i;
    DecodeStatus status = decode(bytes_ + at, std::min(count_ - at, kMaxInstructionLength), CodeSize::bits64, i);
    constexpr std::uint16_t kNowhere = 0xffff;
    if (status != DecodeStatus::ok) return {1, 0, 0, kNowhere};
    return {1, static_cast<std::uint8_t>(i.length), isSensed(i, timeStamps_) ? std::uint8_t{1} : std::uint8_t{0},
            kNowhere};
  }

  const std::uint8_t* bytes_;
  unsigned count_;
  bool timeStamps_;
  Reading readings_[kBefore + kPageSize + kMaxInstructionLength + 2] = {};
};

}  // namespace

bool runsAsItIs(const std::uint8_t* before, const std::uint8_t* page, const std::uint8_t* next, bool timeStamps) {
  constexpr unsigned kAfter = kMaxInstructionLength;
  std::uint8_t bytes[kBefore + kPageSize + kAfter + 2];
  unsigned first = 0;
  if (before) {
    std::memcpy(bytes, before + kPageSize - kBefore, kBefore);
    first = kBefore;
  }
  unsigned end = first + kPageSize;
  std::memcpy(bytes + first, page, kPageSize);
  if (next) {
    std::memcpy(bytes + end, next, kAfter);
  } else {
    std::memset(bytes + end, 0x90, kAfter);
  }
  Readings readings(bytes, end + kAfter, timeStamps);
  // An instruction that goes on in the next page is that page's, too: it cannot run without.
  for (unsigned n = first == 0 ? 0 : first - 2; n < end; ++n) {
    if (bytes[n] != kEscape && bytes[n] != kInt) continue;
    if (maySense(bytes + n) && readings.isReadSo(n)) return false;
  }
  return true;
}

namespace {

/// Of whole words: four at a time, which is as fast as they come.
std::uint64_t digest(std::uint64_t seed, const std::uint8_t* bytes, unsigned count) {
  constexpr std::uint64_t kFactor = 0x9e37'79b9'7f4a'7c15;
  constexpr unsigned kLanes = 4, kWord = 8, kFold = 29;
  std::uint64_t lane[kLanes] = {seed, seed + 1, seed + 2, seed + 3};
  for (unsigned at = 0; at < count; at += kLanes * kWord) {
    for (unsigned n = 0; n < kLanes; ++n) {
      std::uint64_t mixed = (lane[n] ^ loadLe<std::uint64_t>(bytes + at + n * kWord)) * kFactor;
      lane[n] = mixed ^ mixed >> kFold;
    }
  }
  for (std::uint64_t l : lane) {
    seed = (seed ^ l) * kFactor;
    seed ^= seed >> kFold;
  }
  return seed;
}
}  // namespace

bool PageVerdicts::runsAsItIs(const std::uint8_t* before, const std::uint8_t* page, const std::uint8_t* next,
                              bool timeStamps) {
  // As they are at one moment: other vCPUs may write.
  constexpr unsigned kAfter = 32;  // of the next page, more than it says something of
  alignas(8) std::uint8_t pages[3 * kPageSize];
  std::uint8_t *middle = pages + kPageSize, *last = middle + kPageSize;
  if (before) std::memcpy(middle - kBefore, before + kPageSize - kBefore, kBefore);
  std::memcpy(middle, page, kPageSize);
  if (next) std::memcpy(last, next, kAfter);
  std::uint64_t key = (timeStamps ? 1 : 0) | (before ? 2 : 0) | (next ? 4 : 0);
  if (before) key = digest(key, middle - kBefore, kBefore);
  key = digest(key, middle, kPageSize);
  if (next) key = digest(key, last, kAfter);
  if (auto found = known_.find(key); found != known_.end()) return found->second;
  if (known_.size() >= kMost) known_.clear();
  bool verdict = translate::runsAsItIs(before ? pages : nullptr, middle, next ? last : nullptr, timeStamps);
  known_.emplace(key, verdict);
  return verdict;
}

namespace {
__attribute__((target("xsave"))) std::uint64_t hostXcr0() {
  return _xgetbv(0);
}

/// Without a library's function: guest registers may be live in this folder.
bool isHosts(const std::string& name) {
  constexpr std::string_view kHost = "host";
  if (name.size() != kHost.size()) return false;
  bool same = true;
  for (std::size_t n = 0; n < kHost.size(); ++n) same = same && name[n] == kHost[n];
  return same;
}
}  // namespace

bool mayRunNatively(const CpuModel& model) {
  return isHosts(model.name) && model.xcr0Supported == hostXcr0();
}

}  // namespace lodge::translate
