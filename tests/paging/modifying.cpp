// SPDX-License-Identifier: Apache-2.0
#include "tests/paging/modifying.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "tests/paging/machine.h"

// What runs. RBX: this vCPU's Block; RSI: its table of {function, its two allowed values}, R8D: how many. R12: the
// immediate of a function of its own at R13, which gives R14D; R15: the same immediate at another address. Both allowed
// values may move on by one between the two comparisons: so the first comes again.
asm(R"(
  .pushsection .rodata
lodgeModifyingRunner:
1:
  xor %ecx, %ecx
2:
  mov %rcx, %rdx
  shl $4, %rdx
  mov 8(%rsi,%rdx), %r9
  call *(%rsi,%rdx)
  cmp (%r9), %rax
  je 3f
  cmp 8(%r9), %rax
  je 3f
  cmp (%r9), %rax
  jne 9f
3:
  test $7, %cl
  jnz 4f
  # Its own code: by the address that it runs at, then by another, after which it must serialize.
  incl (%r12)
  inc %r14d
  call *%r13
  cmp %r14d, %eax
  jne 8f
  incl (%r15)
  inc %r14d
  push %rbx
  push %rcx
  xor %eax, %eax
  xor %ecx, %ecx
  cpuid
  pop %rcx
  pop %rbx
  call *%r13
  cmp %r14d, %eax
  jne 8f
4:
  mov (%rbx), %r10
  cmp 8(%rbx), %r10
  je 7f
5:
  mov %r10, 8(%rbx)
  test $1, %r10b
  jz 6f
51:
  pause
  mov (%rbx), %r11
  cmp %r10, %r11
  je 51b
  mov %r11, %r10
  jmp 5b
6:
  push %rbx
  push %rcx
  xor %eax, %eax
  xor %ecx, %ecx
  cpuid
  pop %rcx
  pop %rbx
7:
  inc %ecx
  cmp %r8d, %ecx
  jb 2b
  incq 16(%rbx)
  cmpq $0, 24(%rbx)
  je 1b
  movq $1, 40(%rbx)
  hlt
8:
  mov %r13, %r9
  mov %rax, 48(%rbx)
  movq $2, 32(%rbx)
  hlt
9:
  mov %rax, 48(%rbx)
  mov (%rsi,%rdx), %r9
  mov %r9, 56(%rbx)
  movq $1, 32(%rbx)
  hlt
lodgeModifyingRunnerEnd:
  .popsection
)");
extern "C" const std::byte lodgeModifyingRunner[], lodgeModifyingRunnerEnd[];

namespace lodge::paging {

namespace {
constexpr unsigned kRunners = 3, kSimple = 24, kCodePages = 3, kUnit = 64;
/// In the user's pages, which the kernel reaches, too: the code, and what all share. Their stacks end below that.
constexpr std::uint64_t kRunner = 0x1000, kShared = 0x3000, kTables = 0x200, kTableBytes = 0x400, kAllowed = 0x100;
constexpr std::uint64_t kPresentWritable = 3, kUserBit = 4;
/// Across the ends of pages.
constexpr std::array<std::uint64_t, 2> kAcross = {kPageSize - 7, 2 * kPageSize - 21};

struct Block {
  std::uint64_t request, answer, rounds, stop, wrong, ended, value, function;
};

struct Function {
  std::uint64_t position;  ///< from the first code page on
  std::vector<std::uint8_t> bytes;
};
constexpr std::uint8_t kOpcodes[] = {0x05, 0x35, 0x2d};  // ADD, XOR, SUB EAX, imm32

class Modifying {
 public:
  Modifying(Machine& machine, std::uint64_t seed) : machine_(machine), random_(seed) {}
  std::string run(std::uint64_t changes);

 private:
  std::uint64_t below(std::uint64_t limit) { return random_() % limit; }
  std::uint64_t sharedAt(std::uint64_t offset) const { return kUser + kShared + offset; }
  volatile Block& block(unsigned runner) {
    return *reinterpret_cast<volatile Block*>(machine_.physical(sharedAt(runner * sizeof(Block)), sizeof(Block)));
  }
  volatile std::uint64_t* allowed(std::size_t function) {
    return reinterpret_cast<volatile std::uint64_t*>(
        machine_.physical(kUser + kShared + 0x1000 + kAllowed + function * 16, 16));
  }
  /// Both addresses of the code pages, for users or for the kernel.
  std::uint64_t alias(bool user, unsigned which) const {
    return kRegions[user ? 1 : 2] + which * machine_.layout().slotBytes();
  }
  void start();
  void startRunner(unsigned runner);
  std::vector<std::uint8_t> simpleCode(std::uint32_t value) const;
  void compose(Function& function);
  void store(std::uint64_t position, const std::uint8_t* bytes, unsigned length);
  std::string changeAtOnce();
  std::string changeWhole();
  std::string ask(std::uint64_t step);
  std::string complaint(unsigned runner);

  Machine& machine_;
  std::mt19937_64 random_;
  std::vector<Function> functions_;
  std::vector<std::uint64_t> own_;  ///< positions of the runners' own functions
};

bool isUser(unsigned runner) {
  return runner != 0;
}

std::vector<std::uint8_t> Modifying::simpleCode(std::uint32_t value) const {
  std::vector<std::uint8_t> code = {0xb8, 0, 0, 0, 0, 0xc3, 0x90, 0x90};  // mov eax, value; ret
  std::memcpy(code.data() + 1, &value, 4);
  return code;
}

/// What a function of compose()'s gives.
std::uint32_t evaluate(const std::vector<std::uint8_t>& code) {
  std::uint32_t value = 0, operand = 0;
  for (std::size_t at = 0; code[at] != 0xc3;) {
    if (code[at] == 0xeb) {
      at += 2 + code[at + 1];
      continue;
    }
    std::memcpy(&operand, &code[at + 1], 4);
    value = code[at] == 0xb8   ? operand
            : code[at] == 0x05 ? value + operand
            : code[at] == 0x35 ? value ^ operand
                               : value - operand;
    at += 5;
  }
  return value;
}

/// MOV and up to six instructions, some of them jumps over bytes that are none.
void Modifying::compose(Function& function) {
  auto& code = function.bytes;
  code = simpleCode(static_cast<std::uint32_t>(random_()));
  code.resize(5);
  for (std::uint64_t n = below(7); n != 0; --n) {
    bool jump = below(4) == 0;
    std::uint64_t length = jump ? below(4) : 4;
    code.push_back(jump ? 0xeb : kOpcodes[below(3)]);
    if (jump) code.push_back(static_cast<std::uint8_t>(length));
    for (; length != 0; --length) code.push_back(static_cast<std::uint8_t>(random_()));
  }
  code.push_back(0xc3);
}

void Modifying::startRunner(unsigned runner) {
  unsigned vcpu = runner + 1, space = runner % kSpaces;
  bool user = isUser(runner);
  (void)machine_.run(vcpu,
                     {Stub::writeCr3, false, false, 0, machine_.root(space) | (machine_.cpu(vcpu).state.cr3 & 1)});
  std::uint64_t table = kTables + runner * kTableBytes;
  for (std::size_t f = 0; f < functions_.size(); ++f) {
    machine_.write(sharedAt(table + 16 * f), alias(user, static_cast<unsigned>(below(2))) + functions_[f].position);
    machine_.write(sharedAt(table + 16 * f + 8), kUserLinear + kShared + 0x1000 + kAllowed + 16 * f);
  }
  machine_.reset(vcpu, user);
  x86::CpuState& state = machine_.cpu(vcpu).state;
  state.gpr[x86::rbx] = kUserLinear + kShared + runner * sizeof(Block);
  state.gpr[x86::rsi] = kUserLinear + kShared + table;
  state.gpr[x86::r8] = functions_.size();
  unsigned which = static_cast<unsigned>(below(2));
  state.gpr[x86::r13] = alias(user, which) + own_[runner];
  state.gpr[x86::r12] = state.gpr[x86::r13] + 1;
  state.gpr[x86::r14] = runner << 16;
  state.gpr[x86::r15] = alias(user, which ^ 1) + own_[runner] + 1;
  state.gpr[x86::rsp] -= user ? 0x800 * vcpu : 0x800;  // vCPU 0 has the stacks' ends
  state.rip = kUserLinear + kRunner;
}

/// The code at two addresses for users and two for the kernel; then the vCPUs' registers.
void Modifying::start() {
  for (unsigned which = 0; which < 2; ++which) {
    for (std::uint64_t at = 0; at < kCodePages * kPageSize; at += kPageSize) {
      machine_.write(machine_.slotOf(0, alias(true, which) + at, 0), (kFrames + at) | kPresentWritable | kUserBit);
      machine_.write(machine_.slotOf(0, alias(false, which) + at, 0), (kFrames + at) | kPresentWritable);
    }
  }
  std::vector<std::uint64_t> units;
  for (std::uint64_t at = kUnit; at < kCodePages * kPageSize; at += kUnit)
    if (at % kPageSize != 0 && at % kPageSize != kPageSize - kUnit) units.push_back(at);
  std::shuffle(units.begin(), units.end(), random_);
  for (unsigned i = 0; i < kRunners; ++i) own_.push_back(units[i]);
  for (unsigned i = 0; i < kSimple; ++i) functions_.push_back({units[kRunners + i], {}});
  for (std::uint64_t position : kAcross) functions_.push_back({position, {}});
  auto place = [&](std::uint64_t position, const std::vector<std::uint8_t>& code) {
    std::memcpy(machine_.physical(kFrames + position, code.size()), code.data(), code.size());
  };
  for (std::size_t f = 0; f < functions_.size(); ++f) {
    compose(functions_[f]);
    place(functions_[f].position, functions_[f].bytes);
    allowed(f)[0] = allowed(f)[1] = evaluate(functions_[f].bytes);
  }
  for (unsigned i = 0; i < kRunners; ++i) place(own_[i], simpleCode(i << 16));
  auto length = static_cast<std::size_t>(lodgeModifyingRunnerEnd - lodgeModifyingRunner);
  std::memcpy(machine_.physical(kUser + kRunner, length), lodgeModifyingRunner, length);
  for (unsigned i = 0; i < kRunners; ++i) startRunner(i);
}

/// By the guest's kernel or a program at any address of the code, or by a device. Eight bytes that are aligned are
/// written at once.
void Modifying::store(std::uint64_t position, const std::uint8_t* bytes, unsigned length) {
  std::uint64_t gpa = kFrames + position, value = 0;
  unsigned how = static_cast<unsigned>(below(3));
  for (unsigned step = 0; length != 0; bytes += step, position += step, gpa += step, length -= step) {
    step = length >= 8 && (position % 8 == 0 || below(2) != 0) ? 8 : length >= 4 && below(2) != 0 ? 4 : 1;
    std::memcpy(&value, bytes, step);
    if (how == 2) {
      std::byte* at = machine_.physical(gpa, step);
      if (step == 8 && gpa % 8 == 0) {
        __atomic_store_n(reinterpret_cast<std::uint64_t*>(at), value, __ATOMIC_RELAXED);
      } else {
        std::memcpy(at, bytes, step);
      }
      machine_.deviceWrote(gpa, step);
      continue;
    }
    Stub stub = step == 8 ? Stub::store8 : step == 4 ? Stub::store4 : Stub::store1;
    (void)machine_.run(0, {stub, how == 1, false, alias(how == 1, static_cast<unsigned>(below(2))) + position, value});
  }
}

std::string Modifying::complaint(unsigned runner) {
  volatile Block& b = block(runner);
  if (b.wrong == 0) return "";
  return fmt::format("vCPU {} got {:x} from {} {:x}", runner + 1, b.value,
                     b.wrong == 2 ? "its own function, not" : "the function at",
                     b.wrong == 2 ? machine_.cpu(runner + 1).state.gpr[x86::r14] & 0xffff'ffff : b.function);
}

/// All take notice: those that are asked by an odd number wait for the next.
std::string Modifying::ask(std::uint64_t step) {
  for (unsigned i = 0; i < kRunners; ++i)
    __atomic_store_n(const_cast<std::uint64_t*>(&block(i).request), block(i).request + step, __ATOMIC_SEQ_CST);
  auto start = std::chrono::steady_clock::now();
  for (unsigned i = 0; i < kRunners; ++i) {
    while (block(i).answer != block(i).request) {
      if (std::string wrong = complaint(i); !wrong.empty()) return wrong;
      if (std::chrono::steady_clock::now() - start > std::chrono::seconds(300))
        return fmt::format("vCPU {} does not answer", i + 1);
      std::this_thread::yield();
    }
  }
  return "";
}

/// One aligned store to code that runs: another constant and operation in one instruction.
std::string Modifying::changeAtOnce() {
  std::size_t f = below(kSimple);
  std::vector<std::uint8_t>& code = functions_[f].bytes;
  std::size_t window = below(code.size()) & ~std::size_t{7};
  auto change = [&](std::size_t at, std::uint8_t byte) {
    if (at - window < 8) code[at] = byte;
  };
  for (std::size_t at = 0; code[at] != 0xc3; at += code[at] == 0xeb ? 2 + code[at + 1] : 5) {
    if (code[at] == 0xeb || below(2) == 0) continue;
    if (at != 0) change(at, kOpcodes[below(3)]);
    for (std::size_t i = 1; i < 5; ++i) change(at + i, static_cast<std::uint8_t>(random_()));
    if (at + 5 > window) break;  // of two instructions, one could be fetched before the store and one after
  }
  std::uint8_t bytes[8];
  std::memcpy(bytes, machine_.physical(kFrames + functions_[f].position + window, 8), 8);
  std::memcpy(bytes, code.data() + window, std::min<std::size_t>(8, code.size() - window));
  allowed(f)[1] = evaluate(code);
  store(functions_[f].position + window, bytes, 8);
  std::string wrong = ask(2);
  allowed(f)[0] = evaluate(code);
  return wrong;
}

/// Other functions, while nobody runs them.
std::string Modifying::changeWhole() {
  if (std::string wrong = ask(1); !wrong.empty()) return wrong;
  for (std::uint64_t n = 1 + below(4); n != 0; --n) {
    std::size_t f = below(4) == 0 ? kSimple + below(kAcross.size()) : below(functions_.size());
    Function& function = functions_[f];
    compose(function);
    store(function.position, function.bytes.data(), static_cast<unsigned>(function.bytes.size()));
    allowed(f)[0] = allowed(f)[1] = evaluate(function.bytes);
  }
  return ask(1);
}

std::string Modifying::run(std::uint64_t changes) {
  start();
  std::vector<std::thread> threads;
  std::array<bool, kRunners> halted{};
  for (unsigned i = 0; i < kRunners; ++i) {
    threads.emplace_back([this, i, &halted] {
      x86::Cpu& cpu = machine_.cpu(i + 1);
      cpu.events.store(0);
      if (cpu.listener) cpu.listener->modeChanged();
      halted[i] = machine_.vcpu(i + 1).run() == VcpuExit::halted;
    });
  }
  std::string wrong;
  for (std::uint64_t n = 0; n < changes && wrong.empty(); ++n) wrong = below(2) == 0 ? changeAtOnce() : changeWhole();
  for (unsigned i = 0; i < kRunners; ++i) {
    block(i).stop = 1;
    if (!wrong.empty()) machine_.cpu(i + 1).raise(x86::event::stop);
  }
  for (std::thread& thread : threads) thread.join();
  for (unsigned i = 0; i < kRunners && wrong.empty(); ++i) {
    wrong = complaint(i);
    if (wrong.empty() && (!halted[i] || block(i).ended == 0 || block(i).rounds == 0))
      wrong = fmt::format("vCPU {} did not end well", i + 1);
  }
  return wrong;
}
}  // namespace

std::string modifying(std::string_view engine, std::string trace, std::uint64_t seed, std::uint64_t changes) {
  auto machine = Machine::create(engine, std::move(trace), MachineKind{Paging::bits64, seed % 2 != 0});
  if (!machine) return machine.error().message();
  return Modifying(**machine, seed).run(changes);
}

}  // namespace lodge::paging
