// SPDX-License-Identifier: Apache-2.0
// Nested virtualization and Hyper-V's interface, on a real KVM; skipped where the probe finds none.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <thread>

#include "engine/kvm/test_apics.h"
#include "engine/nested_keeper.h"

namespace lodge::kvm {
namespace {

class KvmInterfacesTest : public testing::Test {
 protected:
  static constexpr std::uint64_t kCode = 0x1000, kPage = 0x5000;

  void SetUp() override {
    static const ProbeResult probed = ProbeCache::ofHost().get([] { return probe(); });
    if (!probed.usable) GTEST_SKIP() << "no KVM to test with: " << probed.reason;
  }
  /// False: this host's KVM does not offer it, and says so.
  bool make(GuestInterfaces interfaces) {
    memory_ = std::move(*GuestMemory::create(4_MiB));
    model_ = std::move(*x86::makeCpuModel("x86-64-v2", 1));
    EXPECT_TRUE(limitModel(*model_, Irqchip::split));
    if (Status offered = offerInterfaces(*model_, interfaces); !offered) {
      EXPECT_EQ(offered.error().kind(), ErrorKind::unsupported) << offered.error().message();
      EXPECT_FALSE(offered.error().hint().empty());
      return false;
    }
    interfaces_ = interfaces;
    environment_.onPort = [this](std::uint64_t) {
      if (std::get<0>(environment_.ports.back()) == 0x13) vcpu_->cpu().raise(x86::event::stop);
    };
    makeMachine();
    return true;
  }
  void makeMachine() {
    EngineSetup setup{.memory = *memory_,
                      .model = *model_,
                      .cpus = 1,
                      .trace = {},
                      .irqchip = Irqchip::split,
                      .interfaces = interfaces_};
    vcpu_.reset();
    engine_ = std::move(*makeEngine(setup, "/dev/kvm"));
    vcpu_ = std::move(*engine_->createVcpu(0, environment_));
  }
  /// The guest goes on in another machine of KVM's with the same memory, as after a restore.
  void moveToAnotherMachine(const std::function<void(InterfaceState&)>& change = nullptr) {
    vcpu_->settle();
    InterfaceState interfaces;
    x86::LocalApicRegisters apic;
    ASSERT_TRUE(vcpu_->readApic(apic));
    ASSERT_TRUE(vcpu_->readInterfaces(interfaces));
    x86::CpuState state = vcpu_->cpu().state;
    std::uint32_t events = vcpu_->cpu().events;
    makeMachine();
    vcpu_->forget();
    if (change) change(interfaces);
    Status written = vcpu_->writeInterfaces(interfaces);
    ASSERT_TRUE(written) << written.error().message();
    vcpu_->cpu().state = state;
    auto* keeper = dynamic_cast<NestedKeepingVcpu*>(vcpu_.get());
    tried_ = keeper->tryNested();
    ASSERT_TRUE(vcpu_->writeApic(apic));
    vcpu_->cpu().raise(events);
  }
  void put(std::uint64_t at, std::initializer_list<int> code) {
    std::vector<std::byte> bytes;
    for (int byte : code) bytes.push_back(static_cast<std::byte>(byte));
    EXPECT_TRUE(memory_->write(Gpa{at}, bytes));
  }
  template <class T>
  void store(std::uint64_t at, T value) {
    EXPECT_TRUE(memory_->writeObject(Gpa{at}, value));
  }
  std::uint64_t at(std::uint64_t gpa) {
    std::uint64_t value = 0;
    EXPECT_TRUE(memory_->readObject(Gpa{gpa}, value));
    return value;
  }
  void reset() {
    vcpu_->settle();
    vcpu_->forget();
    x86::resetCpu(vcpu_->cpu(), false);
  }
  /// After a reset, runs code in real mode; what it wrote to port 0x12. It ends with out 0x13, al, or after ten
  /// seconds.
  std::vector<std::uint64_t> run(std::initializer_list<int> code) {
    put(kCode, code);
    put(kCode + code.size(), {0xe6, 0x13, 0xf4});
    reset();
    x86::CpuState& state = vcpu_->cpu().state;
    state.segment[x86::cs] = {0, 0xffff, 0, 0x93};
    state.rip = kCode;
    return go();
  }
  /// The guest goes on until it stops itself, or `enough` says so, or twenty seconds are over.
  std::vector<std::uint64_t> go(const std::function<bool()>& enough = [] { return false; }) {
    environment_.ports.clear();
    std::atomic<bool> over{false};
    std::thread guard([&] {
      for (int i = 0; i < 4000 && !over && !enough(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
      vcpu_->cpu().raise(x86::event::stop);
    });
    EXPECT_EQ(vcpu_->run(), VcpuExit::stopped);
    over = true;
    guard.join();
    vcpu_->cpu().events = 0;
    std::vector<std::uint64_t> values;
    for (const auto& [port, size, value] : environment_.ports) {
      if (port == 0x12) values.push_back(value);
    }
    return values;
  }
  bool offersSynic() const {
    auto leaf = std::ranges::find(model_->leaves, 0x4000'0003u, &x86::CpuidEntry::leaf);
    return leaf != model_->leaves.end() && (leaf->eax & 0xc) == 0xc;
  }
  void startSynic();
  void startNestedGuest();
  void startLoop();

  GuestInterfaces interfaces_;
  Status tried_;  ///< by moveToAnotherMachine()
  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<x86::CpuModel> model_;
  FakeEnvironment environment_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Vcpu> vcpu_;
};

TEST_F(KvmInterfacesTest, AGuestFindsHypervsAndAResetTakesItsPagesAway) {
  if (!make({.hyperv = true})) return;
  // The vendor's first four letters; identity 1; the hypercall page at 0x5000; reference counter; VP index.
  auto found =
      run({0x66, 0xb8, 0,    0, 0, 0x40, 0x0f, 0xa2, 0x66, 0x89, 0xd8, 0x66, 0xe7, 0x12,                    // cpuid
           0x66, 0xb9, 0,    0, 0, 0x40, 0x66, 0xb8, 1,    0,    0,    0,    0x66, 0x31, 0xd2, 0x0f, 0x30,  // wrmsr
           0x66, 0xb9, 1,    0, 0, 0x40, 0x66, 0xb8, 1,    0x50, 0,    0,    0x66, 0x31, 0xd2, 0x0f, 0x30,  // wrmsr
           0x66, 0xb9, 0x20, 0, 0, 0x40, 0x0f, 0x32, 0x66, 0xe7, 0x12,                                      // rdmsr
           0x66, 0xb9, 2,    0, 0, 0x40, 0x0f, 0x32, 0x66, 0xe7, 0x12});                                    // rdmsr
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0], 0x7263'694du);
  EXPECT_GT(found[1], 0u);
  EXPECT_EQ(found[2], 0u);
  std::uint16_t call = 0;
  ASSERT_TRUE(memory_->readObject(Gpa{kPage}, call));
  EXPECT_EQ(call, 0x010fu) << "VMCALL or VMMCALL";
  // rdmsr of the hypercall page's register
  EXPECT_EQ(run({0x66, 0xb9, 1, 0, 0, 0x40, 0x0f, 0x32, 0x66, 0xe7, 0x12}), std::vector<std::uint64_t>{0});
  // KVM's own leaves are behind: "KVMK"
  EXPECT_EQ(run({0x66, 0xb8, 0, 1, 0, 0x40, 0x0f, 0xa2, 0x66, 0x89, 0xd8, 0x66, 0xe7, 0x12}),
            std::vector<std::uint64_t>{0x4b4d'564b});
}

TEST_F(KvmInterfacesTest, WithoutARequestThereIsNone) {
  ASSERT_TRUE(make({}));
  EXPECT_EQ(run({0x66, 0xb8, 0, 0, 0, 0x40, 0x0f, 0xa2, 0x66, 0x89, 0xd8, 0x66, 0xe7, 0x12}),
            std::vector<std::uint64_t>{0x4b4d'564b});
  auto extended = run({0x66, 0xb8, 1, 0, 0, 0x80, 0x0f, 0xa2, 0x66, 0x89, 0xc8, 0x66, 0xe7, 0x12});
  ASSERT_EQ(extended.size(), 1u);
  EXPECT_EQ(extended[0] & 4, 0u) << "SVM";
}

TEST_F(KvmInterfacesTest, AGuestMayTurnSvmOn) {
  if (!make({.nested = true}) || model_->vendor != x86::CpuVendor::amd) return;
  for (int round = 0; round < 2; ++round) {
    // CPUID 0x80000001, ECX; EFER with SVME, as it is read back; VM_CR
    auto found = run({0x66, 0xb8, 1,    0,    0,    0x80, 0x0f, 0xa2, 0x66, 0x89, 0xc8, 0x66, 0xe7, 0x12,  //
                      0x66, 0xb9, 0x80, 0,    0,    0xc0, 0x0f, 0x32, 0x66, 0x0d, 0,    0x10, 0,    0,
                      0x0f, 0x30, 0x0f, 0x32, 0x66, 0xe7, 0x12,  //
                      0x66, 0xb9, 0x14, 1,    1,    0xc0, 0x0f, 0x32, 0x66, 0xe7, 0x12});
    ASSERT_EQ(found.size(), 3u);
    EXPECT_NE(found[0] & 4, 0u);
    EXPECT_EQ(found[1] & 0x1000, 0x1000u);
    EXPECT_EQ(found[2] & 0x10, 0u) << "not disabled";
  }
}

/// WRMSR in 16-bit code.
#define WRMSR(number, low)                                                                                          \
  0x66, 0xb9, (number)&255, (number) >> 8 & 255, (number) >> 16 & 255, (number) >> 24 & 255, 0x66, 0xb8, (low)&255, \
      (low) >> 8 & 255, (low) >> 16 & 255, (low) >> 24 & 255, 0x66, 0x31, 0xd2, 0x0f, 0x30

/// A guest with the x2APIC, messages at 0x6000 whose source 2 is vector 0x40, and timer 0, which sends one there in an
/// hour; then it waits for a message, and tells its type.
void KvmInterfacesTest::startSynic() {
  store<std::uint32_t>(0x40 * 4, 0x1800);
  put(0x1800, {WRMSR(0x80b, 0), 0xcf});
  run({WRMSR(0x1b, 0xfee0'0d00u), WRMSR(0x80f, 0x1ff), WRMSR(0x4000'0083, 0x6001), WRMSR(0x4000'0080, 1),
       WRMSR(0x4000'0092, 0x40),
       // rdmsr of the counter; edx += 8, which is an hour; wrmsr of the count
       0x66, 0xb9, 0x20, 0, 0, 0x40, 0x0f, 0x32, 0x66, 0x83, 0xc2, 8, 0x66, 0xb9, 0xb1, 0, 0, 0x40, 0x0f, 0x30,
       WRMSR(0x4000'00b0, 0x20001), 0xe6, 0x13,   // out 0x13, al
       0xfb, 0xf4,                                // sti; hlt
       0x66, 0x83, 0x3e, 0, 0x62, 0, 0x74, 0xf6,  // cmp dword [0x6200], 0; je
       0x66, 0xa1, 0, 0x62, 0x66, 0xe7, 0x12,     // mov eax, [0x6200]; out 0x12, eax
       0x66, 0xb9, 0x20, 0, 0, 0x40, 0x0f, 0x32, 0x66, 0x89, 0xd0, 0x66, 0xe7, 0x12});  // the counter, above
}

TEST_F(KvmInterfacesTest, ATimersMessageArrivesInTheMachineThatGoesOn) {
  if (!make({.hyperv = true})) return;
  if (!offersSynic()) GTEST_SKIP() << "this host's KVM has no KVM_CAP_HYPERV_SYNIC2";
  startSynic();
  EXPECT_EQ(at(0x6200) & 0xffff'ffff, 0u) << "not within an hour";
  // There the hour is over.
  bool found = false;
  moveToAnotherMachine([&](InterfaceState& state) {
    for (MsrValue& each : state.hyperv) {
      if (each.number == 0x4000'0020) each.value += std::uint64_t{9} << 32;
      found = found || each.number == 0x4000'0020;
    }
  });
  EXPECT_TRUE(found);
  auto said = go();
  ASSERT_EQ(said.size(), 2u);
  EXPECT_EQ(said[0], 0x8000'0010u) << "HvMessageTimerExpired";
  EXPECT_GE(said[1], 9u) << "the reference counter goes on";
  // A reset takes all of it away.
  EXPECT_EQ(run({0x66, 0xb9, 0x83, 0, 0, 0x40, 0x0f, 0x32, 0x66, 0xe7, 0x12,  // rdmsr
                 0x66, 0xb9, 0x92, 0, 0, 0x40, 0x0f, 0x32, 0x66, 0xe7, 0x12}),
            (std::vector<std::uint64_t>{0, 0x10000}));
}

TEST_F(KvmInterfacesTest, ARegisterThatIsNotHypervsIsRefused) {
  if (!make({.hyperv = true})) return;
  EXPECT_EQ(vcpu_->writeInterfaces({.nested = {}, .hyperv = {{0xc000'0082, 1}}}).error().kind(), ErrorKind::corrupt);
}

/// A host in 64-bit mode (code at 0x1000) runs a guest (0x3000, control block 0x20000) that counts at 0x5000 until a
/// byte is at 0x5008, and tells why it came back.
void KvmInterfacesTest::startNestedGuest() {
  constexpr std::uint64_t kTables = 0x10000, kBlock = 0x20000, kRights = 7, kLarge = 0x80;
  constexpr std::uint64_t kEfer = x86::efer::lme | x86::efer::lma | x86::efer::svme;
  constexpr std::uint64_t kCr0 = x86::cr0::pe | x86::cr0::pg | x86::cr0::ne | x86::cr0::et;
  store<std::uint64_t>(kTables, (kTables + 0x1000) | kRights);
  store<std::uint64_t>(kTables + 0x1000, (kTables + 0x2000) | kRights);
  for (std::uint64_t n = 0; n < 2; ++n) store<std::uint64_t>(kTables + 0x2000 + 8 * n, n << 21 | kRights | kLarge);
  put(0x1000,
      {0xb9, 0x17, 1,    1,    0xc0, 0xb8, 0,    0x20, 2,    0,    0x31, 0xd2, 0x0f, 0x30,  // VM_HSAVE_PA = 0x22000
       0xb8, 0,    0,    2,    0,    0x0f, 0x01, 0xd8,                                      // vmrun
       0x48, 0x8b, 0x04, 0x25, 0x70, 0,    2,    0,    0xe7, 0x12, 0xe6, 0x13, 0xf4});      // EXITCODE
  put(0x3000, {0x48, 0xff, 0x04, 0x25, 0, 0x50, 0,    0,    0x80, 0x3c, 0x25,
               8,    0x50, 0,    0,    0, 0x74, 0xee, 0x0f, 0x01, 0xd9});  // vmmcall
  // APM vol. 2, appendix B: intercepts of VMRUN and VMMCALL, ASID; then the registers.
  store<std::uint32_t>(kBlock + 0x10, 3);
  store<std::uint32_t>(kBlock + 0x58, 1);
  for (std::uint64_t segment : {0x400, 0x410, 0x420, 0x430}) {
    store<std::uint16_t>(kBlock + segment, segment == 0x410 ? 8 : 16);
    store<std::uint16_t>(kBlock + segment + 2, segment == 0x410 ? 0xa9b : 0xc93);
    store<std::uint32_t>(kBlock + segment + 4, 0xffff'ffff);
  }
  for (auto [offset, value] :
       std::initializer_list<std::pair<std::uint64_t, std::uint64_t>>{{0x4d0, kEfer},
                                                                      {0x548, x86::cr4::pae},
                                                                      {0x550, kTables},
                                                                      {0x558, kCr0},
                                                                      {0x560, 0x400},
                                                                      {0x568, 0xffff'0ff0},
                                                                      {0x570, 2},
                                                                      {0x578, 0x3000},
                                                                      {0x5d8, 0x8000},
                                                                      {0x668, 0x0007'0406'0007'0406}})
    store<std::uint64_t>(kBlock + offset, value);
  reset();
  x86::CpuState& state = vcpu_->cpu().state;
  state.cr0 = kCr0;
  state.cr3 = kTables;
  state.cr4 = x86::cr4::pae;
  state.efer = kEfer;
  for (x86::SegmentRegister& segment : state.segment) segment = {0, 0xffff'ffff, 16, 0xc093};
  state.segment[x86::cs] = {0, 0xffff'ffff, 8, 0xa09b};
  state.rip = kCode;
  state.gpr[x86::rsp] = 0x9000;
}

TEST_F(KvmInterfacesTest, AGuestsGuestGoesOn) {
  if (!make({.nested = true}) || model_->vendor != x86::CpuVendor::amd) return;
  startNestedGuest();
  std::uint64_t seen = 0;
  auto counts = [&] { return at(0x5000) > seen; };
  EXPECT_TRUE(go(counts).empty());
  ASSERT_GT(at(0x5000), 0u);
  // On the same machine, then on another one, each time in the middle of it.
  vcpu_->settle();
  InterfaceState state;
  ASSERT_TRUE(vcpu_->readInterfaces(state));
  EXPECT_TRUE(state.nested.runsGuest());
  EXPECT_EQ(state.nested.format, NestedState::kSvm);
  EXPECT_GE(state.nested.blocks.size(), 1024u) << "the control block";
  EXPECT_EQ(virtualizationInUse(vcpu_->cpu().state, state.nested), Virtualization::svm);
  seen = at(0x5000);
  EXPECT_TRUE(go(counts).empty());
  EXPECT_GT(at(0x5000), seen);
  moveToAnotherMachine();
  EXPECT_TRUE(tried_) << tried_.error().message();
  seen = at(0x5000);
  EXPECT_TRUE(go(counts).empty());
  EXPECT_GT(at(0x5000), seen);
  put(0x5008, {1});
  EXPECT_EQ(go(), std::vector<std::uint64_t>{0x81}) << "VMMCALL";
  moveToAnotherMachine();
  EXPECT_TRUE(tried_) << "its guest has ended";
  // A reset in the middle of it leaves nothing behind.
  put(0x5008, {0});
  startNestedGuest();
  seen = at(0x5000);
  EXPECT_TRUE(go(counts).empty());
  EXPECT_EQ(run({0x66, 0xb9, 0x80, 0, 0, 0xc0, 0x0f, 0x32, 0x66, 0xe7, 0x12}), std::vector<std::uint64_t>{0}) << "EFER";
}

/// A guest without virtualization loops in real mode; it says 0x40 for the 8259A's vector, and 2 for an NMI.
void KvmInterfacesTest::startLoop() {
  put(kCode, {0xeb, 0xfe});
  for (int vector : {2, 0x40}) {
    std::uint64_t handler = 0x1800 + static_cast<std::uint64_t>(vector);
    store<std::uint32_t>(static_cast<std::uint64_t>(vector) * 4, static_cast<std::uint32_t>(handler));
    put(handler, {0xb0, vector, 0xe6, 0x12, 0xe6, 0x13, 0xf4});  // mov al, imm; out 0x12, al; out 0x13, al; hlt
  }
  reset();
  x86::LocalApicRegisters apic = powerOn(0);
  apic.words[kLvtLint0] = 0x700;
  ASSERT_TRUE(vcpu_->writeApic(apic));
  x86::CpuState& state = vcpu_->cpu().state;
  state.segment[x86::cs] = {0, 0xffff, 0, 0x93};
  state.rip = kCode;
  state.rflags = x86::flag::reserved1 | x86::flag::if_;
  state.gpr[x86::rsp] = 0x8000;
}

TEST_F(KvmInterfacesTest, WhatIsOnItsWayToACpuArrives) {
  if (!make({.nested = true})) return;
  for (bool elsewhere : {false, true}) {
    // The CPU stops between the interrupt's way out of its controller and its delivery.
    startLoop();
    environment_.apic_.onAcknowledge = [this] { vcpu_->cpu().raise(x86::event::stop); };
    environment_.apic_.waiting = 0x40;
    EXPECT_TRUE(go().empty());
    EXPECT_EQ(environment_.apic_.waiting, -1);
    vcpu_->settle();
    EXPECT_EQ(vcpu_->cpu().state.rip, 0x1840u) << "its delivery is complete";
    InterfaceState state;
    ASSERT_TRUE(vcpu_->readInterfaces(state));
    EXPECT_FALSE(state.nested.events.interruptInjected);
    if (elsewhere) moveToAnotherMachine();
    EXPECT_EQ(go(), std::vector<std::uint64_t>{0x40}) << elsewhere;
    // And while KVM has an NMI.
    startLoop();
    vcpu_->cpu().raise(x86::event::nmi | x86::event::stop);
    EXPECT_TRUE(go().empty());
    vcpu_->settle();
    if (elsewhere) moveToAnotherMachine();
    EXPECT_EQ(go(), std::vector<std::uint64_t>{2}) << elsewhere;
  }
}

TEST(KvmInterfaces, VmxIsInUseInSystemManagementModeToo) {
  x86::CpuState state{};
  NestedState nested;
  nested.format = NestedState::kVmx;
  nested.header.fill(0xff);
  state.smm = 1;
  EXPECT_EQ(virtualizationInUse(state, nested), Virtualization::none);
  std::fill_n(nested.header.begin(), 8, std::uint8_t{0});  // the VMXON region is at 0x5000
  nested.header[1] = 0x50;
  EXPECT_EQ(virtualizationInUse(state, nested), Virtualization::vmx);
  state.smm = 0;
  EXPECT_EQ(virtualizationInUse(state, nested), Virtualization::none);
  state.cr4 = kCr4Vmxe;
  EXPECT_EQ(virtualizationInUse(state, {}), Virtualization::vmx);
}

TEST(KvmInterfaces, SvmIsInUseInSystemManagementModeToo) {
  x86::CpuState state{};
  NestedState nested;
  nested.format = NestedState::kSvm;
  nested.registers = {{0xc001'0114, 0}, {0xc001'0117, 0}};
  state.smm = 1;
  EXPECT_EQ(virtualizationInUse(state, nested), Virtualization::none);
  nested.registers[1].value = 0x7000;
  EXPECT_EQ(virtualizationInUse(state, nested), Virtualization::svm);
  state.smm = 0;
  EXPECT_EQ(virtualizationInUse(state, nested), Virtualization::none) << "SVM is off, as EFER says";
  state.efer = x86::efer::svme;
  EXPECT_EQ(virtualizationInUse(state, {}), Virtualization::svm);
}

TEST_F(KvmInterfacesTest, AGuestsGuestThatKvmDoesNotTakeIsRefusedBeforeItRuns) {
  if (!make({.nested = true}) || model_->vendor != x86::CpuVendor::amd) return;
  startNestedGuest();
  EXPECT_TRUE(go([&] { return at(0x5000) > 0; }).empty());
  moveToAnotherMachine([](InterfaceState& state) { state.nested.blocks.resize(512); });  // a part of the control block
  ASSERT_FALSE(tried_);
  EXPECT_EQ(tried_.error().kind(), ErrorKind::unsupported);
  EXPECT_TRUE(tried_.error().message().ends_with("KVM_SET_NESTED_STATE: Invalid argument")) << tried_.error().message();
  EXPECT_FALSE(tried_.error().hint().empty());
}

TEST_F(KvmInterfacesTest, AnotherMakersNestedStateIsRefused) {
  if (!make({.nested = true})) return;
  InterfaceState state;
  ASSERT_TRUE(vcpu_->readInterfaces(state));
  state.nested.format ^= 1;
  EXPECT_EQ(vcpu_->writeInterfaces(state).error().kind(), ErrorKind::unsupported);
  EXPECT_TRUE(vcpu_->writeInterfaces({})) << "of an engine without it: as at power-up";
}

}  // namespace
}  // namespace lodge::kvm
