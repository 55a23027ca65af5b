// SPDX-License-Identifier: Apache-2.0
#include "tests/paging/shootdown.h"

#include <fmt/format.h>

#include <chrono>
#include <random>
#include <span>
#include <thread>
#include <vector>

#include "tests/paging/machine.h"

// The reader. RBX: what both share; RSI: the pages' addresses, R8D: how many. Both allowed values may move on by one
// between the two comparisons: so the first comes again.
asm(R"(
  .pushsection .rodata
lodgeShootdownReader:
1:
  xor %ecx, %ecx
2:
  mov (%rsi,%rcx,8), %rdi
  mov %rcx, %rdx
  shl $4, %rdx
  mov 64(%rdi), %rax
  cmp 0x100(%rbx,%rdx), %rax
  je 3f
  cmp 0x108(%rbx,%rdx), %rax
  je 3f
  cmp 0x100(%rbx,%rdx), %rax
  jne 9f
3:
  lea 16(%rdi), %r9
  call *%r9
  cmp 0x100(%rbx,%rdx), %eax
  je 4f
  cmp 0x108(%rbx,%rdx), %eax
  je 4f
  cmp 0x100(%rbx,%rdx), %eax
  jne 9f
4:
  mov (%rbx), %rax
  test %rax, %rax
  jz 5f
  invlpg (%rax)
  movq $0, (%rbx)
5:
  inc %ecx
  cmp %r8d, %ecx
  jb 2b
  incq 24(%rbx)
  cmpq $0, 32(%rbx)
  je 1b
  hlt
9:
  mov %rax, 16(%rbx)
  mov %rdi, 40(%rbx)
  hlt
lodgeShootdownReaderEnd:
  .popsection
)");
extern "C" const std::byte lodgeShootdownReader[], lodgeShootdownReaderEnd[];

namespace lodge::paging {

namespace {
constexpr std::uint64_t kShared = 0xb000, kReader = 0xc000;  ///< in the kernel's pages
constexpr std::uint64_t kRequest = 0, kWrongValue = 16, kRounds = 24, kStop = 32, kWrongPage = 40, kAllowed = 0x100,
                        kAddresses = 0x800;
constexpr std::uint64_t kPresentWritable = 3;

std::uint64_t idOf(std::uint64_t frame) {
  return 0x1000'0001 * (frame / kPageSize) + (frame << 32);
}

class Shootdown {
 public:
  Shootdown(Machine& machine, std::uint64_t seed) : machine_(machine), random_(seed) {}
  std::string run(std::uint64_t changes);

 private:
  volatile std::uint64_t& shared(std::uint64_t offset) {
    return *reinterpret_cast<volatile std::uint64_t*>(machine_.physical(kKernel + kShared + offset, 8));
  }
  void start();
  std::string change();

  Machine& machine_;
  std::mt19937_64 random_;
  std::vector<std::uint64_t> pages_, frames_, now_;
};

/// Every page has a frame; a frame says which it is, as data and as code.
void Shootdown::start() {
  for (unsigned i = 0; i < kFrameCount; ++i) {
    std::uint64_t frame = kFrames + i * kPageSize, id = idOf(frame);
    machine_.write(frame + 64, id);
    const std::uint64_t code[] = {0x00b8 | (id & 0xffff'ffff) << 8 | 0xc3ull << 40};  // mov eax, id; ret
    machine_.write(frame + 16, code[0]);
    frames_.push_back(frame);
  }
  for (std::uint64_t slot : {kRegions[2], kRegions[2] + 2_MiB})
    for (unsigned page : kPages) pages_.push_back(slot + page * kPageSize);
  for (std::size_t i = 0; i < pages_.size(); ++i) {
    now_.push_back(frames_[i % frames_.size()]);
    machine_.write(machine_.slotOf(0, pages_[i], 0), now_[i] | kPresentWritable);
    machine_.write(kKernel + kShared + kAddresses + 8 * i, pages_[i]);
    shared(kAllowed + 16 * i) = idOf(now_[i]);
    shared(kAllowed + 16 * i + 8) = idOf(now_[i]);
  }
  auto length = static_cast<std::size_t>(lodgeShootdownReaderEnd - lodgeShootdownReader);
  for (std::size_t at = 0; at < length; ++at) *machine_.physical(kKernel + kReader + at, 1) = lodgeShootdownReader[at];
  machine_.reset(1, false);
  x86::CpuState& state = machine_.cpu(1).state;
  state.gpr[x86::rbx] = kKernelLinear + kShared;
  state.gpr[x86::rsi] = kKernelLinear + kShared + kAddresses;
  state.gpr[x86::r8] = pages_.size();
  state.rip = kKernelLinear + kReader;
  state.gpr[x86::rsp] -= 0x800;  // the other vCPU has the stack's end
}

std::string Shootdown::change() {
  std::size_t page = random_() % pages_.size();
  std::uint64_t frame = frames_[random_() % frames_.size()], slot = machine_.slotOf(0, pages_[page], 0);
  shared(kAllowed + 16 * page + 8) = idOf(frame);
  if (random_() % 2 == 0) {
    machine_.write(slot, frame | kPresentWritable);
  } else {
    (void)machine_.run(0, {Stub::store8, false, false, machine_.layout().tables() + slot, frame | kPresentWritable});
  }
  (void)machine_.run(0, {Stub::invlpg, false, false, pages_[page], 0});
  shared(kRequest) = pages_[page];
  auto start = std::chrono::steady_clock::now();
  while (shared(kRequest) != 0) {
    if (shared(kWrongPage) != 0) return fmt::format("{:x} was read at {:x}", shared(kWrongValue), shared(kWrongPage));
    if (std::chrono::steady_clock::now() - start > std::chrono::seconds(60)) return "the reader does not answer";
    std::this_thread::yield();
  }
  shared(kAllowed + 16 * page) = idOf(frame);
  Outcome own = machine_.run(0, {Stub::load8, false, false, pages_[page] + 64, 0});
  if (own.vector != 0 || own.value != idOf(frame))
    return fmt::format("the changer read {:x} at {:x}, not {:x}", own.value, pages_[page], idOf(frame));
  return "";
}

std::string Shootdown::run(std::uint64_t changes) {
  start();
  std::string wrong;
  bool ended = false;
  std::thread reader([&] {
    machine_.cpu(1).events.store(0);
    if (machine_.cpu(1).listener) machine_.cpu(1).listener->modeChanged();
    ended = machine_.vcpu(1).run() == VcpuExit::halted;
  });
  for (std::uint64_t n = 0; n < changes && wrong.empty(); ++n) wrong = change();
  shared(kStop) = 1;
  if (wrong == "the reader does not answer") machine_.cpu(1).raise(x86::event::stop);
  reader.join();
  if (wrong.empty() && (!ended || shared(kWrongPage) != 0)) wrong = "the reader did not end well";
  if (wrong.empty() && shared(kRounds) == 0) wrong = "the reader did not read";
  return wrong;
}
}  // namespace

std::string shootdown(std::string_view engine, std::string trace, std::uint64_t seed, std::uint64_t changes) {
  auto machine = Machine::create(engine, std::move(trace), MachineKind{Paging::bits64, seed % 2 != 0});
  if (!machine) return machine.error().message();
  return Shootdown(**machine, seed).run(changes);
}

}  // namespace lodge::paging
