// SPDX-License-Identifier: Apache-2.0
#include "tests/paging/machine.h"

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <span>

#include "base/trace.h"
#include "tests/halting_guest.h"
#include "x86/virtual_memory.h"

namespace lodge::paging {

namespace {
using namespace x86;
using namespace halting_guest;

constexpr std::uint64_t kGdt = 0, kTss = 0x200, kIdt = 0x1000, kHandlers = 0x2000, kStubs = 0x4000, kStack = 0x8000,
                        kFaultStack = 0x9000;
constexpr unsigned kStubBytes = 16, kGdtEntries = 10;
}  // namespace

std::uint8_t mmioByte(std::uint64_t gpa) {
  return static_cast<std::uint8_t>(gpa * 0x9d >> 3);
}

class Machine::Environment : public QuietEnvironment {
 public:
  std::uint64_t readMmio(Gpa gpa, unsigned size) override {
    std::uint64_t value = 0;
    for (unsigned i = 0; i < size; ++i) value |= std::uint64_t{mmioByte(raw(gpa) + i)} << (8 * i);
    return value;
  }
  void writeMmio(Gpa gpa, unsigned size, std::uint64_t value) override {
    for (unsigned i = 0; i < size; ++i) writes[raw(gpa) + i] = static_cast<std::uint8_t>(value >> (8 * i));
  }
  std::map<std::uint64_t, std::uint8_t> writes;
};

Machine::Machine(const MachineKind& kind) : kind_(kind), layout_(Layout::of(kind.paging)) {}
Machine::~Machine() = default;

std::map<std::uint64_t, std::uint8_t>& Machine::mmioWrites() {
  return environment_->writes;
}

std::uint64_t Machine::read(std::uint64_t gpa) const {
  std::uint64_t value = 0;
  (void)memory_->readObject(Gpa{gpa}, value);
  return value;
}

void Machine::write(std::uint64_t gpa, std::uint64_t value) {
  (void)memory_->writeObject(Gpa{gpa}, value);
}

void Machine::buildCpu(unsigned vcpu) {
  bool wide = kind_.paging == Paging::bits64;
  CpuState& state = cpu(vcpu).state;
  state.cr0 = cr0::pe | cr0::mp | cr0::et | cr0::ne | cr0::wp | cr0::pg;
  state.cr3 = roots_[0] | (kind_.pcide ? 1 : 0);
  state.cr4 = cr4::pge | cr4::osfxsr | (wide ? cr4::fsgsbase : 0) | (kind_.pcide ? cr4::pcide : 0) |
              (kind_.keys ? cr4::pke : 0) | (kind_.paging == Paging::bits32 ? cr4::pse : cr4::pae);
  state.efer = efer::nxe | (wide ? efer::sce | efer::lme | efer::lma : 0);
  for (unsigned i = 0; kind_.paging == Paging::pae && i < 4; ++i) state.pdpte[i] = entry(roots_[0] + 8 * i);
  state.gdtr = {layout_.kernel + kGdt, kGdtEntries * 8 - 1, 0};
  state.idtr = {layout_.kernel + kIdt, 0xfff, 0};
  state.tr = {layout_.kernel + kTss, 0x67, kTr, 0x8b};
  state.ldtr = {};
  state.activity = Activity::running;
  cpu(vcpu).fpuLive = false;
}

void Machine::buildKernel() {
  bool wide = kind_.paging == Paging::bits64;
  std::array<std::uint64_t, kGdtEntries> gdt{};
  gdt[kKernelCs >> 3] = wide ? kKernelCode64 : kKernelCode32;
  gdt[kKernelSs >> 3] = kKernelData;
  gdt[kUserCs32 >> 3] = kUserCode32;
  gdt[kUserSs >> 3] = kUserData;
  gdt[kUserCs >> 3] = wide ? kUserCode64 : kUserCode32;
  std::ranges::copy(systemDescriptor(SystemSegment::busyTss, layout_.kernel + kTss, 0x67), gdt.begin() + (kTr >> 3));
  (void)memory_->write(Gpa{kKernel + kGdt}, std::as_bytes(std::span(gdt)));
  std::uint64_t stack = layout_.kernel + kStack;
  // RSP0, or ESP0 and SS0.
  (void)memory_->writeObject(Gpa{kKernel + kTss + 4}, wide ? stack : stack | std::uint64_t{kKernelSs} << 32);
  if (wide) (void)memory_->writeObject(Gpa{kKernel + kTss + 36}, layout_.kernel + kFaultStack);  // IST1
  writeHaltingGates(*memory_, {wide, kKernel + kIdt, kKernel + kHandlers, layout_.kernel + kHandlers, wide ? 1u : 0u});
  writeStubs(kKernel + kStubs);
  writeStubs(kUser);
}

void Machine::writeStubs(std::uint64_t gpa) {
  // In 32-bit code those up to CALL are the same without REX; of the others, those with the same bytes are used.
  bool wide = kind_.paging == Paging::bits64;
  const std::initializer_list<std::uint8_t> code[] = {
      {0x8a, 0x03},                                // mov al, [rbx]
      {0x8b, 0x03},                                // mov eax, [rbx]
      {0x48, 0x8b, 0x03},                          // mov rax, [rbx]
      {0x88, 0x03},                                // mov [rbx], al
      {0x89, 0x03},                                // mov [rbx], eax
      {0x48, 0x89, 0x03},                          // mov [rbx], rax
      {0xf0, 0x0f, 0xc1, 0x03},                    // lock xadd [rbx], eax
      {0xff, 0xd3},                                // call rbx
      {0x0f, 0x01, 0x3b},                          // invlpg [rbx]
      {0x66, 0x0f, 0x38, 0x82, 0x03},              // invpcid rax, [rbx]
      {0x0f, 0x22, 0xd8},                          // mov cr3, rax
      {0x0f, 0x22, 0xe0},                          // mov cr4, rax
      {0x0f, 0x22, 0xc0},                          // mov cr0, rax
      {0x31, 0xc9, 0x31, 0xd2, 0x0f, 0x01, 0xef},  // xor ecx, ecx; xor edx, edx; wrpkru
      {0xff, 0xe3},                                // jmp rbx
      {0x48, 0x89, 0xdc, 0x50},                    // mov rsp, rbx; push rax
      {0x48, 0x89, 0xdc, 0x58},                    // mov rsp, rbx; pop rax
      {0x48, 0x89, 0xdc, 0xc3},                    // mov rsp, rbx; ret
      // wrfsbase rbx; mov rax, fs:[0]
      {0xf3, 0x48, 0x0f, 0xae, 0xd3, 0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0},
      {0x48, 0x8b, 0x04, 0x03},  // mov rax, [rbx + rax]
      {0x0f, 0x10, 0x03},        // movups xmm0, [rbx]
      // mov rsi, rbx; mov rdi, rbx; mov ecx, 64; rep movsb
      {0x48, 0x89, 0xde, 0x48, 0x89, 0xdf, 0xb9, 64, 0, 0, 0, 0xf3, 0xa4},
  };
  static_assert(std::size(code) == static_cast<std::size_t>(Stub::kCount));
  for (const auto& bytes : code) {
    std::uint8_t stub[kStubBytes];
    std::memset(stub, 0xf4, sizeof stub);  // hlt
    bool drop = !wide && *bytes.begin() == 0x48;
    std::memcpy(stub, bytes.begin() + (drop ? 1 : 0), bytes.size() - (drop ? 1 : 0));
    (void)memory_->write(Gpa{gpa}, std::as_bytes(std::span(stub)));
    gpa += kStubBytes;
  }
}

std::uint64_t Machine::stubAddress(Stub stub, bool user) const {
  return (user ? layout_.user : layout_.kernel + kStubs) + static_cast<unsigned>(stub) * kStubBytes;
}

void Machine::reset(unsigned vcpu, bool user) {
  CpuState& state = cpu(vcpu).state;
  for (Segment s : {es, ds, fs, gs}) state.segment[s] = {0, 0xffffffff, kUserSs, 0xc0f3};
  std::uint16_t size = kind_.paging == Paging::bits64 ? 0xa000 : 0xc000;
  state.segment[cs] = user ? SegmentRegister{0, 0xffffffff, kUserCs, static_cast<std::uint16_t>(size | 0xfb)}
                           : SegmentRegister{0, 0xffffffff, kKernelCs, static_cast<std::uint16_t>(size | 0x9b)};
  state.segment[ss] =
      user ? SegmentRegister{0, 0xffffffff, kUserSs, 0xc0f3} : SegmentRegister{0, 0xffffffff, kKernelSs, 0xc093};
  state.cpl = user ? 3 : 0;
  state.rflags = 2;
  state.gpr[rsp] = user ? layout_.user + 8 * kPageSize - 64 : layout_.kernel + kStack - 64;
  state.activity = Activity::running;
}

Outcome Machine::run(unsigned vcpu, const Operation& operation) {
  Cpu& c = cpu(vcpu);
  CpuState& state = c.state;
  reset(vcpu, operation.user);
  if (operation.accessCheckOff) state.rflags |= flag::ac;
  state.gpr[rax] = operation.value;
  state.gpr[rbx] = operation.address;
  state.rip = stubAddress(operation.stub, operation.user);
  state.cr2 = 0;
  c.events.store(0);
  c.exception.valid = false;
  if (c.listener) c.listener->modeChanged();
  std::uint64_t first = state.rip;
  VcpuExit exit = vcpus_[vcpu]->run();
  Outcome outcome;
  std::uint64_t handler = state.rip - (layout_.kernel + kHandlers);
  if (exit != VcpuExit::halted) {
    outcome.vector = 0x100 + static_cast<unsigned>(exit);
    return outcome;
  }
  outcome.value = state.gpr[rax];
  if (handler >= 256 * kHandlerBytes) return outcome;  // halted in the stub
  outcome.vector = static_cast<unsigned>(handler / kHandlerBytes);
  std::uint64_t mask = kind_.paging == Paging::bits64 ? ~0ull : 0xffff'ffff;  // of a pushed word
  std::uint64_t stack = kKernel + (state.gpr[rsp] - layout_.kernel);
  if (hasErrorCode(outcome.vector)) {
    outcome.errorCode = read(stack) & mask;
    stack += kind_.paging == Paging::bits64 ? 8 : 4;
  }
  // Users' HLT is a #GP: the stub has ended.
  std::uint64_t rip = read(stack) & mask;
  if (operation.user && outcome.vector == 13 && rip - first < kStubBytes) outcome.vector = 0;
  outcome.address = outcome.vector == 14 ? state.cr2 : 0;
  return outcome;
}

Result<std::unique_ptr<Machine>> Machine::create(std::string_view engine, std::string trace, MachineKind kind) {
  auto machine = std::unique_ptr<Machine>(new Machine(kind));
  if (Status known = withholdHostFeatures(trace); !known) return std::move(known).error();
  auto memory = GuestMemory::create(kind.paging == Paging::bits64 ? kHugeFrame + 4_MiB : 16_MiB);
  if (!memory) return std::move(memory).error();
  machine->memory_ = std::move(*memory);
  auto model = makeCpuModel("host", kVcpus);
  if (!model) return std::move(model).error();
  machine->model_ = std::move(*model);
  if (kind.keys) {
    machine->model_->features |= std::uint64_t{1} << static_cast<unsigned>(Feature::pku);
    machine->model_->cr4Supported |= cr4::pke;
  }
  machine->environment_ = std::make_unique<Environment>();
  EngineSetup setup{*machine->memory_, *machine->model_, kVcpus, 64_MiB, std::move(trace)};
  auto made = makeEngine(engine, setup);
  if (!made) return std::move(made).error();
  machine->engine_ = std::move(*made);
  for (unsigned i = 0; i < kVcpus; ++i) {
    auto vcpu = machine->engine_->createVcpu(i, *machine->environment_);
    if (!vcpu) return std::move(vcpu).error();
    machine->vcpus_[i] = std::move(*vcpu);
  }
  machine->buildTables();
  machine->buildKernel();
  for (unsigned i = 0; i < kVcpus; ++i) {
    machine->buildCpu(i);
    Cpu& c = machine->cpu(i);
    if (c.listener) c.listener->addressSpaceChanged(false);
    x86::flushTlbEverything(c);
    if (c.listener) c.listener->modeChanged();
  }
  return machine;
}

}  // namespace lodge::paging
