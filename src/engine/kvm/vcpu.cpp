// SPDX-License-Identifier: Apache-2.0
#include "engine/kvm/vcpu.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <utility>

#include "base/log.h"
#include "engine/kvm/abi.h"
#include "engine/kvm/cpuid.h"
#include "engine/kvm/statistics.h"
#include "x86/events.h"
#include "x86/paravirt.h"
#include "x86/system.h"

namespace lodge::kvm {

namespace {

namespace event = x86::event;
using x86::Activity;

int kickSignal() {
  return SIGRTMIN + 4;
}

// The signal does its work by arriving: KVM_RUN returns.
Status installKick() {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  action.sa_flags = SA_RESTART;
  if (::sigaction(kickSignal(), &action, nullptr) != 0)
    return Error::fromErrno(errno, "install the kick signal's handler");
  return {};
}

}  // namespace

Result<std::unique_ptr<Vcpu>> KvmVcpu::create(Vm& vm, const EngineSetup& setup, unsigned index,
                                              x86::CpuEnvironment& environment) {
  auto vcpu = std::unique_ptr<KvmVcpu>(new KvmVcpu(vm));
  if (Status opened = vcpu->open(setup, index, environment); !opened)
    return std::move(opened).error().context("create vCPU " + std::to_string(index));
  return std::unique_ptr<Vcpu>(std::move(vcpu));
}

KvmVcpu::~KvmVcpu() {
  if (!run_) return;
  vm_.detach(fd_.get());
  ::munmap(run_, vm_.runSize());
}

Status KvmVcpu::open(const EngineSetup& setup, unsigned index, x86::CpuEnvironment& environment) {
  if (Status s = installKick(); !s) return s;
  cpu_.memory = &setup.memory;
  cpu_.model = &setup.model;
  cpu_.environment = &environment;
  cpu_.index = index;
  cpu_.kick = kick;
  cpu_.engineData = this;
  fd_.reset(call(vm_.fd(), KVM_CREATE_VCPU, static_cast<unsigned long>(index)));
  if (!fd_) return Error::fromErrno(errno, "KVM_CREATE_VCPU");
  if (Status s = setTscRate(); !s) return s;
  void* run = ::mmap(nullptr, vm_.runSize(), PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
  if (run == MAP_FAILED) return Error::fromErrno(errno, "map struct kvm_run");
  run_ = static_cast<kvm_run*>(run);
  if (Status attached = vm_.attach(fd_.get(), run_, environment); !attached) return attached;
  syncsEvents_ = vm_.hasApics() && (vm_.capability(KVM_CAP_SYNC_REGS) & KVM_SYNC_X86_EVENTS) != 0;
  stats_.reset(call(fd_.get(), KVM_GET_STATS_FD));  // from Linux 5.14 on; nobody needs it
  x86::resetCpu(cpu_, false);
  if (Status s = setCpuid(); !s) return s;
  return openInterfaces();
}

Status KvmVcpu::setCpuid() {
  CpuidList list = cpuidEntries(cpu_);
  if (call(fd_.get(), kSetCpuid2, list.data()) != 0) return Error::fromErrno(errno, "KVM_SET_CPUID2");
  return {};
}

// `immediate_exit` is cleared before events are looked at, and set after they are raised: one of the two sees the
// other.
void KvmVcpu::kick(x86::Cpu& cpu) {
  auto& vcpu = *static_cast<KvmVcpu*>(cpu.engineData);
  std::atomic_ref(vcpu.run_->immediate_exit).store(1, std::memory_order_seq_cst);
  if (vcpu.inKvmRun_.load(std::memory_order_seq_cst))
    ::syscall(SYS_tgkill, ::getpid(), vcpu.thread_.load(), kickSignal());
}

VcpuExit KvmVcpu::run() {
  thread_ = static_cast<int>(::syscall(SYS_gettid));
  for (;;) {
    std::atomic_ref(run_->immediate_exit).store(0, std::memory_order_seq_cst);
    if (cpu_.events.load(std::memory_order_seq_cst) != 0 || cpu_.state.activity != Activity::running) {
      if (auto exit = attend()) return *exit;
      if (cpu_.events.load(std::memory_order_seq_cst) != 0) continue;
    }
    if ((!registersInKvm_ && !load()) || !enter() || !handleExit()) return shutDown();
  }
}

/// The way out after a triple fault or a failure: nothing runs until a reset.
VcpuExit KvmVcpu::shutDown() {
  bool saved = save();
  cpu_.state.activity = Activity::shutdown;
  registersInKvm_ = false;
  return saved && !std::exchange(failed_, false) ? VcpuExit::shutdown : VcpuExit::failed;
}

void KvmVcpu::waitForEvent() {
  x86::waitForEvents(cpu_);
}

void KvmVcpu::settle() {
  if (!save()) cpu_.state.activity = Activity::shutdown;
}

void KvmVcpu::forget() {
  registersInKvm_ = false;
  if (vm_.hasApics()) forgetEvents();
  forgetInterfaces();
}

/// KVM_RUN. False: it failed for good.
bool KvmVcpu::enter() {
  if (vm_.hasApics()) {
    prepareExtInt();
  } else {
    prepareInterrupts();
    run_->cr8 = cpu_.environment->apic().taskPriority();
  }
  count(kRuns);
  inKvmRun_.store(true, std::memory_order_seq_cst);
  int result = ::ioctl(fd_.get(), KVM_RUN, 0);
  int error = errno;
  inKvmRun_.store(false, std::memory_order_seq_cst);
  vm_.drainStores();
  eventsInRun_ = (run_->kvm_valid_regs & KVM_SYNC_X86_EVENTS) != 0;
  accessOpen_ = false;
  interruptFlag_ = run_->if_flag != 0;
  windowOpen_ = run_->ready_for_interrupt_injection != 0;
  windowKnown_ = true;
  cpu_.state.smm = (run_->flags & KVM_RUN_X86_SMM) != 0;
  if (x86::LocalApic& apic = cpu_.environment->apic(); !vm_.hasApics() && apic.taskPriority() != run_->cr8) {
    apic.setTaskPriority(static_cast<std::uint8_t>(run_->cr8));
  }
  // What waited for the end of system management mode.
  if (cpu_.deferredEvents != 0 && cpu_.state.smm == 0) x86::rearmDeferredEvents(cpu_);
  if (result == 0) return true;
  run_->exit_reason = KVM_EXIT_INTR;
  if (error == EINTR || error == EAGAIN) {
    count(kSignals);
    return true;
  }
  errno = error;
  return failCall("KVM_RUN");
}

bool KvmVcpu::failCall(const char* what) {
  return fail(Error::fromErrno(errno, what).message());
}

bool KvmVcpu::fail(const std::string& why) {
  if (whyNot_) {
    *whyNot_ = why;
    return false;
  }
  log(LogLevel::error, "vCPU {}: {}", cpu_.index, why);
  failed_ = true;
  return false;
}

/// Looks at events. An exit if the vCPU may not run now.
std::optional<VcpuExit> KvmVcpu::attend() {
  std::uint32_t pending = cpu_.events.load(std::memory_order_seq_cst);
  auto take = [&](std::uint32_t bit) {
    if ((pending & bit) == 0) return false;
    cpu_.events.fetch_and(~bit, std::memory_order_seq_cst);
    return true;
  };
  if (take(event::flushTlb)) {
    if (Status synced = vm_.syncMemory(); !synced) {
      fail("memory map: " + synced.error().message());
      return shutDown();
    }
  }
  if (vm_.hasApics()) {
    attendWithApic();
    return stopOrGoOn(pending);
  }
  bool runs = cpu_.state.activity == Activity::running || cpu_.state.activity == Activity::halted;
  constexpr std::uint32_t kByState = event::init | event::sipi | event::unhalt;
  if ((pending & kByState) != 0 || (!runs && (pending & ~event::stop) != 0)) {
    attendByState();
  } else {
    bool nmi = take(event::nmi), smi = take(event::smi);
    if ((nmi || smi) && !registersInKvm_) load();
    if (nmi && call(fd_.get(), KVM_NMI) != 0) failCall("KVM_NMI");
    if (smi && vm_.hasSmm() && call(fd_.get(), KVM_SMI) != 0) failCall("KVM_SMI");
    if (take(event::interrupt)) {
      // A handler that has gone back to sleep is done with its paravirtual EOI.
      if (cpu_.state.activity == Activity::halted) x86::syncParavirtEoi(cpu_);
      interruptWanted_ = true;
    }
    bool wakes = nmi || smi || (interruptFlag_ && cpu_.environment->apic().pending());
    if (wakes && cpu_.state.activity == Activity::halted) cpu_.state.activity = Activity::running;
  }
  return stopOrGoOn(pending);
}

std::optional<VcpuExit> KvmVcpu::stopOrGoOn(std::uint32_t pending) {
  Activity activity = cpu_.state.activity;
  if ((pending & event::stop) != 0) {
    // The state is KVM's until settle() where other CPUs may still change it.
    if (vm_.hasApics() ? registersInKvm_ && !completeAccess() : !save()) return shutDown();
    return VcpuExit::stopped;
  }
  if (activity == Activity::shutdown) return shutDown();
  return activity == Activity::running || vm_.hasApics() ? std::nullopt : std::optional(VcpuExit::halted);
}

/// INIT, SIPI and what else changes the whole CPU: rare, and done as every engine does it.
void KvmVcpu::attendByState() {
  if (!save()) {
    cpu_.state.activity = Activity::shutdown;
    return;
  }
  x86::handleEvents(cpu_);
  interruptWanted_ = true;
}

/// Gives KVM the interrupt that the local APIC has, if the guest takes one now; else asks to be told when it does.
void KvmVcpu::prepareInterrupts() {
  run_->request_interrupt_window = 0;
  if ((cpu_.deferredEvents & event::nmi) != 0) {
    cpu_.deferredEvents &= ~event::nmi;
    call(fd_.get(), KVM_NMI);
  }
  x86::LocalApic& apic = cpu_.environment->apic();
  if (!interruptWanted_ && !apic.pending()) return;
  if (windowOpen_) {
    interruptWanted_ = false;
    x86::syncParavirtEoi(cpu_);
    int vector = apic.acknowledge();
    if (vector >= 0) {
      kvm_interrupt interrupt{static_cast<std::uint32_t>(vector)};
      if (call(fd_.get(), KVM_INTERRUPT, &interrupt) != 0) failCall("KVM_INTERRUPT");
      x86::armParavirtEoi(cpu_);
      windowOpen_ = false;
      count(kInterrupts);
    }
  }
  run_->request_interrupt_window = interruptWanted_ || apic.pending();
}

std::vector<std::pair<std::string, std::uint64_t>> KvmVcpu::statistics() const {
  std::vector<std::pair<std::string, std::uint64_t>> all{{"runs", counters_[kRuns]},
                                                         {"signals", counters_[kSignals]},
                                                         {"interrupts", counters_[kInterrupts]},
                                                         {"saves", counters_[kSaves]},
                                                         {"interpreted", counters_[kInterpreted]}};
  for (std::size_t reason = 0; reason < kExitReasons; ++reason) {
    if (std::uint64_t n = exits_[reason]; n != 0) all.emplace_back("exits." + exitReasonName(reason), n);
  }
  for (auto& entry : readStatistics(stats_.get())) all.push_back(std::move(entry));
  return all;
}

}  // namespace lodge::kvm
