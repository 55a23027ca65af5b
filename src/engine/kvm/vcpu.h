// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/kvm.h>

#include <array>
#include <atomic>
#include <optional>

#include "engine/engine.h"
#include "engine/interpret/interpreter.h"
#include "engine/kvm/vm.h"
#include "engine/nested_keeper.h"

namespace lodge::kvm {

/// One virtual CPU on KVM. While it runs, the guest's registers are KVM's and CpuState is stale; save() and load() move
/// them. MSRs that KVM does not keep (Vm) are in CpuState all the time.
class KvmVcpu : public Vcpu, public NestedKeepingVcpu {
 public:
  static Result<std::unique_ptr<Vcpu>> create(Vm& vm, const EngineSetup& setup, unsigned index,
                                              x86::CpuEnvironment& environment);
  ~KvmVcpu() override;
  KvmVcpu(const KvmVcpu&) = delete;
  KvmVcpu& operator=(const KvmVcpu&) = delete;

  x86::Cpu& cpu() override { return cpu_; }
  VcpuExit run() override;
  void waitForEvent() override;
  void settle() override;
  void forget() override;
  Status readApic(x86::LocalApicRegisters& registers) override;
  Status writeApic(const x86::LocalApicRegisters& registers) override;
  Status readInterfaces(InterfaceState& state) override;
  Status writeInterfaces(const InterfaceState& state) override;
  Status tryNested() override;
  std::vector<std::pair<std::string, std::uint64_t>> statistics() const override;

 private:
  explicit KvmVcpu(Vm& vm) : vm_(vm) {}
  Status open(const EngineSetup& setup, unsigned index, x86::CpuEnvironment& environment);
  Status setCpuid();
  static void kick(x86::Cpu& cpu);

  // vcpu.cpp
  bool enter();
  std::optional<VcpuExit> attend();
  void attendByState();
  std::optional<VcpuExit> stopOrGoOn(std::uint32_t pending);
  void prepareInterrupts();
  VcpuExit shutDown();
  bool fail(const std::string& why);
  bool failCall(const char* what);  ///< errno says why

  // vcpu_exits.cpp: false: the vCPU cannot go on.
  bool handleExit();
  void portAccess();
  void memoryAccess();
  void readMsr();
  void writeMsr();
  bool internalError();
  bool isRefusal() const;
  bool interpretOne();

  // vcpu_state.cpp
  bool load();
  bool save();
  bool loadMsrs();
  bool saveMsrs();
  void saveStealTime();
  bool loadEvents();
  void finishDelivery(const kvm_vcpu_events& events);
  bool completeAccess();

  // vcpu_tsc.cpp
  Status setTscRate();
  bool setTscOffset();
  bool storeTscOffset();
  bool tscOffsetAttribute(unsigned long request, std::uint64_t& offset);
  std::optional<std::uint64_t> measureTscAhead();

  // vcpu_apic.cpp: with a local APIC in KVM (Vm::hasApics()).
  void attendWithApic();
  void prepareExtInt();
  void injectExtInt(int vector);
  void latchInit();
  bool loadActivity();
  bool saveActivity();
  void dropTakenEvents(const kvm_vcpu_events& taken);
  void forgetEvents();
  std::uint64_t readMsrOfKvm(std::uint32_t number);
  bool writeMsrOfKvm(std::uint32_t number, std::uint64_t value);

  // vcpu_interfaces.cpp
  Status openInterfaces();
  void forgetInterfaces();
  bool storeNested(const NestedState& state);
  bool leaveNested();
  bool virtualizes() const;
  bool saveNested(const kvm_vcpu_events& taken);
  void addNestedEvents(kvm_vcpu_events& events) const;
  bool refuseNestedInstruction();
  void hypervExit();
  void systemEvent();
  Status writeRegisters(const std::vector<MsrValue>& values, const std::vector<std::uint32_t>& known);

  // Counters by KVM_EXIT_*, for the last of which there is no name yet.
  static constexpr std::size_t kExitReasons = 64;
  enum Counter : std::uint8_t { kRuns, kSignals, kInterrupts, kSaves, kInterpreted, kCounters };
  void count(Counter counter) { counters_[counter].fetch_add(1, std::memory_order_relaxed); }

  Vm& vm_;
  x86::Cpu cpu_;
  std::unique_ptr<interpret::ContextOwner> interpreter_;  ///< made when it is first needed
  UniqueFd fd_, stats_;
  kvm_run* run_ = nullptr;
  std::atomic<int> thread_{0};
  std::atomic<bool> inKvmRun_{false};
  bool registersInKvm_ = false;    ///< else CpuState has them
  bool accessOpen_ = false;        ///< an I/O, memory or MSR access that the next KVM_RUN completes
  bool stealTimeRefused_ = false;  ///< KVM does not keep it: CpuState does
  bool failed_ = false;            ///< since the last run()
  std::string* whyNot_ = nullptr;  ///< tryNested() is told, and not the log
  bool interruptFlag_ = false, windowOpen_ = false;
  bool interruptWanted_ = false;    ///< the APIC had something when the window was closed
  bool syncsEvents_ = false;        ///< KVM hands over kvm_vcpu_events with an exit, and takes them with an entry
  bool eventsInRun_ = false;        ///< it did with the last exit
  bool windowKnown_ = false;        ///< whether windowOpen_ is of the state that KVM has
  InterfaceState interfaces_;       ///< its nested part belongs to CpuState's registers, and is stale when they are
  std::uint64_t tscOffset_ = 0;     ///< CpuState's, as KVM has it
  std::uint64_t taskPriority_ = 0;  ///< CR8 of the local APIC in KVM, while the registers are CpuState's
  std::array<std::atomic<std::uint64_t>, kExitReasons> exits_{};
  std::array<std::atomic<std::uint64_t>, kCounters> counters_{};
};

}  // namespace lodge::kvm
