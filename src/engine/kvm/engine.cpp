// SPDX-License-Identifier: Apache-2.0
// The kvm engine: the guest's instructions run on the host's processor.
#include "engine/kvm/engine.h"

#include "engine/chip_keeper.h"
#include "engine/kvm/vcpu.h"
#include "engine/kvm/vm.h"

namespace lodge {

namespace kvm {

namespace {

class KvmEngine : public Engine, public ChipKeepingEngine {
 public:
  KvmEngine(const EngineSetup& setup, std::unique_ptr<Vm> vm) : setup_(setup), vm_(std::move(vm)) {}

  std::string_view name() const override { return "kvm"; }
  Result<std::unique_ptr<Vcpu>> createVcpu(unsigned index, x86::CpuEnvironment& environment) override {
    return KvmVcpu::create(*vm_, setup_, index, environment);
  }
  void collectVideoStores() override { vm_->collectVideoStores(); }
  bool keepsLocalApics() const override { return vm_->hasApics(); }
  bool sendMsi(const MsiMessage& message) override { return vm_->sendMsi(message); }
  void setLevelMessages(std::span<const MsiMessage> messages) override { vm_->setLevelMessages(messages); }
  bool setMsiEvent(int event, const MsiMessage* message) override { return vm_->setMsiEvent(event, message); }
  bool watchStores(std::uint64_t gpa, int event) override { return vm_->watchStores(gpa, event, true); }
  void unwatchStores(std::uint64_t gpa, int event) override { vm_->watchStores(gpa, event, false); }
  bool keepsChips() const override { return vm_->hasChips(); }
  void setLine(unsigned line, bool level) override { vm_->setPin(line, level); }
  void silencePit(bool silent) override { vm_->silencePit(silent); }
  Status writeChips(const x86::ChipRegisters& registers) override { return vm_->writeChips(registers); }
  Status readChips(x86::ChipRegisters& registers) override { return vm_->readChips(registers); }
  void setEoiListener(std::function<void(std::uint8_t)> listener) override { vm_->onEoi = std::move(listener); }

 private:
  EngineSetup setup_;
  std::unique_ptr<Vm> vm_;
};

}  // namespace

Result<std::unique_ptr<Engine>> makeEngine(const EngineSetup& setup, const char* device, VmUses uses) {
  uses.interfaces = setup.interfaces;
  auto vm = Vm::create(device, setup.memory, setup.irqchip, uses);
  if (!vm) return std::move(vm).error();
  return std::unique_ptr<Engine>(std::make_unique<KvmEngine>(setup, std::move(*vm)));
}

}  // namespace kvm

Result<std::unique_ptr<Engine>> makeKvmEngine(const EngineSetup& setup) {
  return kvm::makeEngine(setup, "/dev/kvm");
}

}  // namespace lodge
