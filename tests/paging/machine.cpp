// SPDX-License-Identifier: Apache-2.0
#include "tests/paging/machine.h"

#include <cstring>
#include <initializer_list>
#include <span>

#include "base/trace.h"
#include "x86/virtual_memory.h"

namespace lodge::paging {

namespace {
using namespace x86;

constexpr std::uint64_t kGdt = 0, kTss = 0x200, kIdt = 0x1000, kHandlers = 0x2000, kStubs = 0x4000, kStack = 0x8000,
                        kFaultStack = 0x9000;
constexpr unsigned kStubBytes = 16;
constexpr std::uint64_t kPresent = 1, kWrite = 2, kUserBit = 4, kAccessedDirty = 0x60, kLarge = 0x80, kGlobal = 0x100;
constexpr std::uint64_t kAddress = 0x000f'ffff'ffff'f000;
constexpr std::uint16_t kKernelCs = 0x10, kKernelSs = 0x18, kUserSs = 0x2b, kUserCs = 0x33, kTr = 0x40;

class NoApic : public LocalApic {
 public:
  int acknowledge() override { return -1; }
  bool pending() const override { return false; }
  std::uint8_t taskPriority() const override { return 0; }
  void setTaskPriority(std::uint8_t) override {}
  bool readMsr(std::uint32_t, std::uint64_t&) override { return false; }
  bool writeMsr(std::uint32_t, std::uint64_t) override { return false; }
  void reset() override {}
};

bool hasErrorCode(unsigned vector) {
  return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21;
}
}  // namespace

std::uint8_t mmioByte(std::uint64_t gpa) {
  return static_cast<std::uint8_t>(gpa * 0x9d >> 3);
}

class Machine::Environment : public CpuEnvironment {
 public:
  std::uint64_t readPort(std::uint16_t, unsigned) override { return ~std::uint64_t{0}; }
  void writePort(std::uint16_t, unsigned, std::uint64_t) override {}
  std::uint64_t readMmio(Gpa gpa, unsigned size) override {
    std::uint64_t value = 0;
    for (unsigned i = 0; i < size; ++i) value |= std::uint64_t{mmioByte(raw(gpa) + i)} << (8 * i);
    return value;
  }
  void writeMmio(Gpa gpa, unsigned size, std::uint64_t value) override {
    for (unsigned i = 0; i < size; ++i) writes[raw(gpa) + i] = static_cast<std::uint8_t>(value >> (8 * i));
  }
  LocalApic& apic() override { return apic_; }
  std::int64_t hypercall(std::uint64_t, const std::uint64_t (&)[4]) override { return -1; }
  Nanoseconds guestTime() override { return 0; }
  Nanoseconds wallClockBase() override { return 0; }
  std::map<std::uint64_t, std::uint8_t> writes;

 private:
  NoApic apic_;
};

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

std::uint64_t Machine::allocate() {
  std::uint64_t table = next_;
  next_ += kPageSize;
  return table;
}

/// The entry of `linear` at level `end`; tables that are missing on the way are made.
std::uint64_t Machine::descend(std::uint64_t table, std::uint64_t linear, int level, int end) {
  for (;; --level) {
    std::uint64_t slot = table + ((linear >> (12 + 9 * level)) & 511) * 8;
    if (level == end) return slot;
    std::uint64_t entry = read(slot);
    if ((entry & kPresent) == 0) {
      entry = allocate() | kPresent | kWrite | kUserBit | kAccessedDirty;
      write(slot, entry);
    }
    table = entry & kAddress;
  }
}

std::uint64_t Machine::slotOf(unsigned space, std::uint64_t linear, int level) const {
  std::uint64_t table = roots_[space];
  for (int at = 3;; --at) {
    std::uint64_t slot = table + ((linear >> (12 + 9 * at)) & 511) * 8;
    if (at == level) return slot;
    table = at == 1 ? tables_.at(slot) : read(slot) & kAddress;
  }
}

std::uint64_t Machine::tableOf(unsigned space, std::uint64_t linear) const {
  return tables_.at(slotOf(space, linear, 1));
}

/// One page in every address space.
void Machine::map(std::uint64_t linear, std::uint64_t gpa, std::uint64_t flags) {
  for (std::uint64_t root : roots_) write(descend(root, linear, 3, 0), gpa | flags | kPresent | kAccessedDirty);
}

void Machine::build(bool pcide) {
  for (std::uint64_t& root : roots_) root = allocate();
  // Everything but the first region is shared: the other spaces' PML4 entries are the first one's.
  for (std::uint64_t linear : {kRegions[1], kRegions[2], kKernelLinear}) {
    (void)descend(roots_[0], linear, 3, 1);
    for (unsigned space = 1; space < kSpaces; ++space) {
      std::uint64_t index = ((linear >> 39) & 511) * 8;
      write(roots_[space] + index, read(roots_[0] + index));
    }
  }
  for (unsigned page = 0; page < 16; ++page)
    write(descend(roots_[0], kKernelLinear + page * kPageSize, 3, 0),
          (kKernel + page * kPageSize) | kPresent | kWrite | kAccessedDirty | kGlobal);
  write(descend(roots_[0], kTablesLinear, 3, 1), kPresent | kWrite | kAccessedDirty | kLarge);
  for (unsigned page = 0; page < 8; ++page)
    map(kUserLinear + page * kPageSize, kUser + page * kPageSize, kWrite | kUserBit);
  // A page table for each slot.
  for (unsigned space = 0; space < kSpaces; ++space) {
    for (std::uint64_t region : kRegions) {
      for (std::uint64_t at : {region, region + 2_MiB}) {
        std::uint64_t slot = descend(roots_[space], at, 3, 1);
        if (tables_.find(slot) == tables_.end()) tables_[slot] = allocate();
        write(slot, tables_[slot] | kPresent | kWrite | kUserBit);
      }
    }
  }
  buildKernel();
  for (unsigned i = 0; i < kVcpus; ++i) {
    CpuState& state = cpu(i).state;
    state.cr0 = cr0::pe | cr0::mp | cr0::et | cr0::ne | cr0::wp | cr0::pg;
    state.cr3 = roots_[0] | (pcide ? 1 : 0);
    state.cr4 = cr4::pae | cr4::pge | cr4::osfxsr | cr4::fsgsbase | (pcide ? cr4::pcide : 0);
    state.efer = efer::sce | efer::lme | efer::lma | efer::nxe;
    state.gdtr = {kKernelLinear + kGdt, 0x4f, 0};
    state.idtr = {kKernelLinear + kIdt, 0xfff, 0};
    state.tr = {kKernelLinear + kTss, 0x67, kTr, 0x8b};
    state.ldtr = {};
    state.activity = Activity::running;
    cpu(i).fpuLive = false;
  }
}

void Machine::buildKernel() {
  std::uint64_t tss = kKernelLinear + kTss;
  const std::uint64_t gdt[] = {0,
                               0,
                               0x00af'9b00'0000'ffff,
                               0x00cf'9300'0000'ffff,
                               0x00cf'fb00'0000'ffff,
                               0x00cf'f300'0000'ffff,
                               0x00af'fb00'0000'ffff,
                               0,
                               0x0000'8b00'0000'0067 | (tss & 0xffffff) << 16 | ((tss >> 24) & 0xff) << 56,
                               tss >> 32};
  (void)memory_->write(Gpa{kKernel + kGdt}, std::as_bytes(std::span(gdt)));
  (void)memory_->writeObject(Gpa{kKernel + kTss + 4}, kKernelLinear + kStack);
  (void)memory_->writeObject(Gpa{kKernel + kTss + 36}, kKernelLinear + kFaultStack);  // IST1
  for (unsigned vector = 0; vector < 256; ++vector) {
    std::uint64_t handler = kKernelLinear + kHandlers + vector * kStubBytes;
    write(kKernel + kIdt + vector * 16,
          (handler & 0xffff) | std::uint64_t{kKernelCs} << 16 | 0x8e01ull << 32 | ((handler >> 16) & 0xffff) << 48);
    write(kKernel + kIdt + vector * 16 + 8, handler >> 32);
    write(kKernel + kHandlers + vector * kStubBytes, 0xfdebf4);  // hlt; jmp to it
  }
  writeStubs(kKernel + kStubs);
  writeStubs(kUser);
}

void Machine::writeStubs(std::uint64_t gpa) {
  const std::initializer_list<std::uint8_t> code[] = {
      {0x8a, 0x03},                    // mov al, [rbx]
      {0x8b, 0x03},                    // mov eax, [rbx]
      {0x48, 0x8b, 0x03},              // mov rax, [rbx]
      {0x88, 0x03},                    // mov [rbx], al
      {0x89, 0x03},                    // mov [rbx], eax
      {0x48, 0x89, 0x03},              // mov [rbx], rax
      {0xf0, 0x0f, 0xc1, 0x03},        // lock xadd [rbx], eax
      {0xff, 0xd3},                    // call rbx
      {0x0f, 0x01, 0x3b},              // invlpg [rbx]
      {0x66, 0x0f, 0x38, 0x82, 0x03},  // invpcid rax, [rbx]
      {0x0f, 0x22, 0xd8},              // mov cr3, rax
      {0x0f, 0x22, 0xe0},              // mov cr4, rax
      {0x0f, 0x22, 0xc0},              // mov cr0, rax
      {0xff, 0xe3},                    // jmp rbx
      {0x48, 0x89, 0xdc, 0x50},        // mov rsp, rbx; push rax
      {0x48, 0x89, 0xdc, 0x58},        // mov rsp, rbx; pop rax
      {0x48, 0x89, 0xdc, 0xc3},        // mov rsp, rbx; ret
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
    std::memcpy(stub, bytes.begin(), bytes.size());
    (void)memory_->write(Gpa{gpa}, std::as_bytes(std::span(stub)));
    gpa += kStubBytes;
  }
}

std::uint64_t Machine::stubAddress(Stub stub, bool user) const {
  return (user ? kUserLinear : kKernelLinear + kStubs) + static_cast<unsigned>(stub) * kStubBytes;
}

void Machine::reset(unsigned vcpu, bool user) {
  CpuState& state = cpu(vcpu).state;
  for (Segment s : {es, ds, fs, gs}) state.segment[s] = {0, 0xffffffff, kUserSs, 0xc0f3};
  state.segment[cs] =
      user ? SegmentRegister{0, 0xffffffff, kUserCs, 0xa0fb} : SegmentRegister{0, 0xffffffff, kKernelCs, 0xa09b};
  state.segment[ss] =
      user ? SegmentRegister{0, 0xffffffff, kUserSs, 0xc0f3} : SegmentRegister{0, 0xffffffff, kKernelSs, 0xc093};
  state.cpl = user ? 3 : 0;
  state.rflags = 2;
  state.gpr[rsp] = user ? kUserLinear + 8 * kPageSize - 64 : kKernelLinear + kStack - 64;
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
  std::uint64_t handler = state.rip - (kKernelLinear + kHandlers);
  if (exit != VcpuExit::halted) {
    outcome.vector = 0x100 + static_cast<unsigned>(exit);
    return outcome;
  }
  outcome.value = state.gpr[rax];
  if (handler >= 256 * kStubBytes) return outcome;  // halted in the stub
  outcome.vector = static_cast<unsigned>(handler / kStubBytes);
  std::uint64_t stack = kKernel + (state.gpr[rsp] - kKernelLinear);
  if (hasErrorCode(outcome.vector)) {
    outcome.errorCode = read(stack);
    stack += 8;
  }
  // Users' HLT is a #GP: the stub has ended.
  std::uint64_t rip = read(stack);
  if (operation.user && outcome.vector == 13 && rip - first < kStubBytes) outcome.vector = 0;
  outcome.address = outcome.vector == 14 ? state.cr2 : 0;
  return outcome;
}

Result<std::unique_ptr<Machine>> Machine::create(std::string_view engine, std::string trace, bool pcide) {
  auto machine = std::unique_ptr<Machine>(new Machine());
  if (Status known = withholdHostFeatures(trace); !known) return std::move(known).error();
  auto memory = GuestMemory::create(16_MiB);
  if (!memory) return std::move(memory).error();
  machine->memory_ = std::move(*memory);
  auto model = makeCpuModel("host", kVcpus);
  if (!model) return std::move(model).error();
  machine->model_ = std::move(*model);
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
  machine->build(pcide);
  for (unsigned i = 0; i < kVcpus; ++i) {
    Cpu& c = machine->cpu(i);
    if (c.listener) c.listener->addressSpaceChanged(false);
    x86::flushTlbEverything(c);
    if (c.listener) c.listener->modeChanged();
  }
  return machine;
}

}  // namespace lodge::paging
